"""What papers have published: the rows of leaderboard/published.csv.

A row is one number of one system on one data set, in percent. `provenance` says how far it can be
trusted: `seen` in the authors' own table, slides, logs or repository; `second-hand`, seen in a
table of others; `unconfirmed`, from memory and seen nowhere. `backbone`, `dim`, `image_size` and
`epochs` are empty where they are not recorded.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("leaderboard") / "published.csv"
UNCONFIRMED = "unconfirmed"
PROVENANCES = ("seen", "second-hand", UNCONFIRMED)


class Published(NamedTuple):
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


@cache
def read() -> tuple[Published, ...]:
    """All rows, in the order of the file."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(_row(**fields) for fields in csv.DictReader(file))


def _row(dim: str, image_size: str, epochs: str, value: str, **texts: str) -> Published:
    return Published(
        dim=int(dim) if dim else None,
        image_size=int(image_size) if image_size else None,
        epochs=float(epochs) if epochs else None,
        value=float(value),
        **texts,
    )
