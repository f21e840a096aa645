"""Data sets: archives -> index and packed images, one file a data set.

A data set is a file of this folder with a literal constant FACTS. It declares

- FACTS, literal, read without an import and part of a run's key: `version` (raised when images or
  split change), `channels` (1 gray, 3 RGB), `levels` (kinds of super-class, the nearest to the
  class first), `recall_at`, and `splits` ({"train": [classes, images], ...}; packing asserts them);
- SOURCES, {archive's file name: Archive}, empty where nothing is fetched; a tuple of such mappings
  where people have the data set in several layouts, of which one is enough;
- `images(archives)`, which takes {archive's file name: path} and yields (Row, source) for each
  image, in any order, so one pass over an archive is enough (an id is the place of an image's path
  among all paths). A source is the encoded file's bytes, or a picklable function side -> PIL image.
  Sources are decoded in other processes, so yielding them must be cheap.

It may declare

- KNOWN_CORRUPT, ("path", ...): images that nobody can decode. They are left out, and FACTS counts
  without them. Any other damaged image is an error;
- ABOUT, as `splits` in FACTS, where the counts are no fact, as another version of a library has
  others: for what `dmlbench plan` says of time and space;
- `protocols(rows, archives)`, which yields (protocol, id, role, repetition) where plain zero-shot
  retrieval by `Row.role` is not the test. `rows` is the sequence of Row in the order of the ids;
- `pairs(rows, archives)`, which yields (id, id, same class, fold), for verification.

A type of data sets, as `csv`, has options. They are the keyword-only arguments of its one public
class, literal as a loss's are; its objects have FACTS, which must be cheap and may raise
DatasetError, SOURCES, `place`, where the images are, `images`, and `check()`, which raises
DatasetError if images are missing.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = 2
"""Of the packed stores; part of their names in a study, so those of another format are others."""

LENGTH = 4 / 3
"""Long side of a usual image, in short sides."""
JPEG_SHARE = 0.25
"""Bytes of a JPEG at decoding.QUALITY, as a share of its pixels'."""


class DatasetError(Exception):
    """An archive, data set or store is not what it must be; the message says what to do."""


class Archive(NamedTuple):
    """Where a file of a data set comes from."""

    urls: tuple[str, ...]
    """The canonical one first, then mirrors; () where people must fetch it themselves."""
    checksum: str | None
    """"md5:..." or "sha256:..."; None where none is published."""
    by_hand: str = ""
    """How a person gets it: the page, what is to be agreed to."""


Sources = Mapping[str, Archive] | tuple[Mapping[str, Archive], ...]
"""{file name: Archive}; or several of these of which one is enough, the preferred first."""


class Row(NamedTuple):
    """What is known of one image: `path` and `class_name` are unique in the data set."""

    path: str
    class_name: str
    levels: tuple[str, ...]
    """Super-classes of the class, one for each of FACTS["levels"]."""
    split: str
    """"train" or "test"; a class is in one of them."""
    role: str = "both"
    """"query", "gallery" or "both" in a test."""
    origin: str = ""
    """Where a person wrote this row, for messages."""


def list_datasets() -> list[str]:
    """Names of the data sets."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if _has_facts(path))


def load(name: str, options: Mapping[str, Any] | None = None) -> Any:
    """Module of the data set `name`, and of no other; of a type with options, the data set that
    they describe. Raises DatasetError if there is none, or if it has no such options."""
    if name not in (names := list_datasets()):
        close = get_close_matches(name, names, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names)}"
        raise DatasetError(f"no data set '{name}': {hint}")
    module = import_module(f"{__name__}.{name}")
    if not options:
        return module
    if not hasattr(module, name.title()):
        raise DatasetError(f"the data set '{name}' has no options")
    try:
        return getattr(module, name.title())(**options)
    except TypeError as error:
        raise DatasetError(f"options of '{name}': {error}") from None


def archive_groups(sources: Sources) -> list[Mapping[str, Archive]]:
    """The groups of archives of which one is enough; none where nothing is fetched."""
    groups = sources if isinstance(sources, tuple) else (sources,)
    return [group for group in groups if group]


def listed(title: str, lines: Sequence[str], most: int = 20) -> str:
    """`title` and the first of `lines`, each on one of its own, and how many more there are."""
    more = [f"... and {len(lines) - most} more"] if len(lines) > most else []
    return "\n    ".join([f"{title}:", *lines[:most], *more])


def store_bytes(images: int, channels: int, side: int, form: str) -> float:
    """What a store of usual images takes, about; `side` is the short one."""
    share = JPEG_SHARE if form == "jpeg" else 1
    return images * channels * side * side * LENGTH * share


def usable_cores() -> int:
    """Cores that this process may use: on a cluster fewer than the machine has, and of a workflow's
    job as many as DMLBENCH_CORES says."""
    affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, int(os.environ.get("DMLBENCH_CORES", cores)))


@cache
def _has_facts(path: Path) -> bool:
    return any(
        isinstance(node, ast.Assign | ast.AnnAssign)
        and ast.unparse(node).startswith(("FACTS = ", "FACTS: "))
        for node in ast.parse(path.read_bytes()).body
    )
