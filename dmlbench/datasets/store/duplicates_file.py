"""The file of the near-duplicates between training images and test images.

It is in the store of the test images, `near_duplicates/<store of the training images>.json`, so it
is made once for all studies. It says what it was made from: both stores and the code that searched.
All holdouts of a store have the file `near_duplicates/holdout.json`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlbench.datasets.store.checks import read_manifest
from dmlbench.utils.digests import read_with_digest, write_with_digest
from dmlbench.utils.errors import DatasetError, DiskError
from dmlbench.utils.fingerprint import code_digest
from dmlbench.utils.locks import locked

if TYPE_CHECKING:
    from dmlbench.datasets.store.duplicates import Duplicates

MAKES_NUMBERS = False
SEARCH = "dmlbench.datasets.store.duplicates"
"""The module that finds near-duplicates."""
HOLDOUT = "holdout"
"""In place of the name of the store of the training images: they are what the holdouts of the store
of the test images may train on."""
COLUMNS = {"test": int, "train": int, "distance": int, "correlation": float, "mirrored": bool}
"""The columns of the pairs, with the type of their values."""


def duplicates_path(stores: Path, trained: str, tested: str) -> Path:
    """The file of the near-duplicates between two stores, which may be the same.

    Args:
        stores: the folder of the packed images.
        trained: the name of the store of the training images, or HOLDOUT.
        tested: the name of the store of the test images.
    """
    return stores / tested / "near_duplicates" / f"{trained}.json"


def duplicates_origin(stores: Path, trained: str, tested: str) -> dict[str, str] | None:
    """What the file is made from; None as long as a store is not packed. Arguments as of
    `duplicates_path`."""
    names = searched_stores(trained, tested)
    contents = [read_manifest(stores / name).get("content") for name in names]
    if None in contents:
        return None
    return {"train": str(contents[0]), "test": str(contents[1]), "code": code_digest(SEARCH)}


def searched_stores(trained: str, tested: str) -> tuple[str, str]:
    """The names of the stores of the training images and of the test images."""
    return (tested if trained == HOLDOUT else trained), tested


def read_duplicates(stores: Path, trained: str, tested: str) -> dict[str, list[Any]] | None:
    """The columns of the pairs: `test` and `train` (ids), `distance`, `correlation`, `mirrored`.

    Arguments as of `duplicates_path`.

    Returns:
        None if nobody has searched yet, or if the file is damaged, or made from other images or by
        other code.
    """
    origin = duplicates_origin(stores, trained, tested)
    try:
        content = read_with_digest(duplicates_path(stores, trained, tested))
    except (OSError, ValueError):
        return None
    pairs = content.get("pairs")
    return pairs if content.get("made_from") == origin and _are_pairs(pairs) else None


def _are_pairs(pairs: Any) -> bool:
    if not isinstance(pairs, Mapping) or pairs.keys() != COLUMNS.keys():
        return False
    if not all(isinstance(values, list) for values in pairs.values()):
        return False
    lengths = {len(values) for values in pairs.values()}
    return len(lengths) == 1 and all(
        type(value) is COLUMNS[name] for name, values in pairs.items() for value in values
    )


def can_be_written(stores: Path, tested: str) -> bool:
    """Whether this process may write to the store of the test images. It may belong to others."""
    folder = stores / tested / "near_duplicates"
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK)


def write_duplicates(stores: Path, trained: str, tested: str) -> str:
    """Find the near-duplicates between two stores and write the file, if it is not there already.

    If two processes want the same file, one searches and the other waits. Arguments as of
    `duplicates_path`.

    Returns:
        How many there are, in words.

    Raises:
        DatasetError: a store is damaged or not packed, or the file cannot be written.
    """
    from dmlbench.datasets.store.duplicates import find_duplicates, find_holdout_duplicates
    from dmlbench.datasets.store.reader import Store

    path = duplicates_path(stores, trained, tested)
    pairs = read_duplicates(stores, trained, tested)
    if pairs is None:
        test_store = Store(stores / tested)
        train_store = test_store if trained in (HOLDOUT, tested) else Store(stores / trained)
        try:
            with locked(path.with_suffix(".lock"), f"{path}: another process makes it; waiting"):
                pairs = read_duplicates(stores, trained, tested)
                if pairs is None:
                    if trained == HOLDOUT:
                        pairs = _columns(find_holdout_duplicates(test_store))
                    else:
                        pairs = _columns(find_duplicates(train_store, test_store))
                    origin = duplicates_origin(stores, trained, tested)
                    write_with_digest(path, {"made_from": origin, "pairs": pairs})
        except DiskError:
            raise
        except OSError as error:
            problem = f"{path} cannot be written: {error.strerror or error}"
            raise DatasetError(f"{problem}. Ask the owner of the store to run this.") from None
    images = len({*pairs["test"]})
    return f"{path}: {images:,} of the test images are near-duplicates of training images"


def _columns(duplicates: Duplicates) -> dict[str, list[Any]]:
    columns = {name: values.tolist() for name, values in duplicates._asdict().items()}
    return columns | {"correlation": [round(value, 4) for value in columns["correlation"]]}


def search_target(trained: str, tested: str) -> str:
    """What a search for near-duplicates is about: the stores of training and test images."""
    if trained == HOLDOUT:
        return f"{tested}, holdouts"
    return tested if trained == tested else f"{trained} -> {tested}"
