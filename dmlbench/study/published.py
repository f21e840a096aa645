"""The numbers that papers have published: the rows of published.csv.

A row is one number of one system on one data set, in percent. `provenance` says how far you can
trust it:

- `seen`: in the authors' own table, slides, logs or repository;
- `second-hand`: in a table of other authors;
- `unconfirmed`: from memory, and seen nowhere.

Where two sources disagree, a part of the note begins with `conflict: ` and says how. A system
`..._in_hpl` is a baseline as HPL prints it, `..._mlrc` one of Musgrave et al., `..._rerun` a later
run of published code; `frozen_...` and `..._frozen` are encoders not trained on the data set.

`backbone`, `dim`, `image_size` and `epochs` are empty if they are not recorded.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("published.csv")
UNCONFIRMED = "unconfirmed"
CONFLICT = "conflict: "
PROVENANCES = ("seen", "second-hand", UNCONFIRMED)


class Published(NamedTuple):
    """A published number, with what the paper says about how it was made."""

    system: str
    paper: str
    table: str
    dataset: str
    backbone: str
    dim: int | None
    image_size: int | None
    epochs: float | None
    protocol: str
    metric: str
    value: float
    provenance: str
    source: str
    note: str

    @property
    def conflict(self) -> str:
        """How its sources disagree; empty if they do not."""
        parts = self.note.split("; ")
        return "; ".join(p.removeprefix(CONFLICT) for p in parts if p.startswith(CONFLICT))


@cache
def read_published() -> tuple[Published, ...]:
    """All rows, in the order of the file.

    >>> read_published()[0].system
    'htl'
    """
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(_parse_row(**fields) for fields in csv.DictReader(file))


def _parse_row(dim: str, image_size: str, epochs: str, value: str, **texts: str) -> Published:
    return Published(
        dim=int(dim) if dim else None,
        image_size=int(image_size) if image_size else None,
        epochs=float(epochs) if epochs else None,
        value=float(value),
        **texts,
    )
