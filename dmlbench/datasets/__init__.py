"""Data sets, one file each: from archives to an index and packed images.

Every file of this folder that has a constant FACTS is a data set. Its module must declare

- `FACTS`, a literal dictionary, which is read without importing the file and is part of a run's
  key:

  - `version`: raise it when the images or the split change;
  - `channels`: 1 (gray) or 3 (RGB);
  - `levels`: the kinds of super-classes, the nearest to the class first;
  - `recall_at`: the K of Recall@K;
  - `splits`: {"train": [classes, images], "test": [...]}, if the counts are known. Packing asserts
    them. A data set may have a part "validation" of classes that train too, unless a study holds
    them out to choose settings; "train" does not count them;
  - further numbers that the file asserts itself;

- `SOURCES`: {archive's file name: Archive}, or {} if nothing is fetched. If people have the data
  set in several layouts, it is a tuple of such dictionaries, and one of them is enough;
- `images(archives)`: takes {archive's file name: path} and yields (Row, source) for each image, in
  any order, so that one pass over an archive is enough. An image's id is the place of its path
  among all sorted paths. A source is the bytes of an encoded image file, or a picklable function
  from the side in pixels to a PIL image. Other processes decode the sources, so yielding them must
  be cheap. Before the first image it compares what it expects with the names in the archives, see
  `members.Members`: what is missing is said before hours of decoding.

It may also declare

- `KNOWN_CORRUPT`: ("path", ...) of images that nobody can decode. They are left out, and FACTS
  counts without them. Any other damaged image is an error;
- `ABOUT`: counts in the form of `splits`, if they are not fixed, for example because another
  version of a library gives others. `dmlbench plan` estimates time and space with them;
- `protocols(rows, archives)`: yields (protocol, id, role, repetition), if the test is not plain
  zero-shot retrieval by `Row.role`. `rows` is the sequence of Row in the order of the ids;
- `pairs(rows, archives)`: yields (id, id, same class, fold), for verification.

A type of data sets, as `csv`, has options. They are the keyword-only arguments of the one public
class in its file, with literal defaults, as for losses. An object of the class has

- `FACTS`: it must be cheap, and may raise DatasetError;
- `SOURCES` and `images`, as above. `SOURCES` may also be `HubFiles`;
- `place`: the folder or zip of the images; None if their facts say which content they have;
- `rows`: all rows, and `check()`: raises DatasetError if images are missing. If `SOURCES` is not
  empty, `is_staged` says whether the rows can be read yet, and `ABOUT` has their counts or is None.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from dmlbench.utils.errors import DatasetError
from dmlbench.utils.modules import public_class, public_classes
from dmlbench.utils.text import did_you_mean

MAKES_NUMBERS = False


class Row(NamedTuple):
    """One image as its data set describes it."""

    path: str
    """Unique in the data set."""
    class_name: str
    """Unique in the data set: two classes never share it."""
    levels: tuple[str, ...]
    """Super-classes of the class, one for each of FACTS["levels"]."""
    split: str
    """"train" or "test". All images of a class are in the same split."""
    role: str = "both"
    """Role in a test: "query", "gallery" or "both"."""
    origin: str = ""
    """File and line that describe this image, for messages."""


def list_datasets() -> list[str]:
    """The names of all data sets, sorted.

    >>> list_datasets()[:3]
    ['cars196', 'csv', 'cub200']
    """
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if _has_facts(path))


def load(name: str, options: Mapping[str, Any] | None = None) -> Any:
    """Import the data set `name`, and no other.

    Args:
        name: one of `list_datasets()`.
        options: of a type that has options, as `csv`.

    Returns:
        The module; with `options`, the object of the module's class that they describe.

    Raises:
        DatasetError: there is no such data set, or it has no such options.

    >>> load("cub200").FACTS["splits"]
    {'train': [100, 5864], 'test': [100, 5924]}
    """
    if name not in (names := list_datasets()):
        raise DatasetError(f"no data set '{name}'. {did_you_mean(name, names)}")
    module = import_module(f"{__name__}.{name}")
    if not options:
        return module
    if not public_classes(module):
        raise DatasetError(f"the data set '{name}' has no options")
    try:
        return public_class(module)(**options)
    except TypeError as error:
        raise DatasetError(f"options of '{name}': {error}") from None


@cache
def _has_facts(path: Path) -> bool:
    return any(
        isinstance(node, ast.Assign | ast.AnnAssign)
        and ast.unparse(node).startswith(("FACTS = ", "FACTS: "))
        for node in ast.parse(path.read_bytes()).body
    )
