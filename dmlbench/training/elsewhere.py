"""Embeddings that were made elsewhere: a frozen foundation model's, another code base's."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.datasets.store import Store

NAMES = {"path": "U", "id": "iu"}
"""The arrays that say whose the embeddings are, one of which is needed, and their kinds."""
SHOWN = 5


class UnusableFile(ValueError):
    """The file does not hold an embedding for each test image; the message says what is wrong."""


def read_embeddings(file: Path, store: Store, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Embeddings (len(rows), D) of the images `rows` of the store's index, from an .npz with
    `embeddings` (n, D) and either `path` (n,), as in the index, or `id` (n,), rows of the index.

    Other images of the data set may be in the file and are left out. Raises UnusableFile.
    """
    try:
        column, names, vectors = _arrays(file)
        known = store.index[column]
        return _pick(vectors, names.tolist(), known[rows].tolist(), {*known.tolist()})
    except UnusableFile as error:
        raise UnusableFile(f"{file}: {error}") from None


def _pick(
    vectors: NDArray[np.floating], names: list[Any], wanted: list[Any], known: set[Any]
) -> NDArray[np.float32]:
    """The vector of each wanted image, as float32."""
    place = {name: number for number, name in enumerate(names)}
    if twice := [name for number, name in enumerate(names) if place[name] != number]:
        raise UnusableFile(f"more than one embedding of {_some(twice)}")
    if unknown := sorted(place.keys() - known):
        raise UnusableFile(f"images that the data set does not have: {_some(unknown)}")
    if missing := [name for name in wanted if name not in place]:
        which = f"{len(missing)} of {len(wanted)} test images"
        raise UnusableFile(f"{which} have no embedding: {_some(missing)}")
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused
        taken = vectors[[place[name] for name in wanted]].astype(np.float32)
    if bad := np.flatnonzero(~np.isfinite(taken).all(axis=1)).tolist():
        which = _some([wanted[row] for row in bad])
        raise UnusableFile(f"{len(bad)} embeddings hold NaN or infinity: {which}")
    return taken


def _arrays(file: Path) -> tuple[str, NDArray[Any], NDArray[np.floating]]:
    """Which of NAMES the file has, that array, and `embeddings`: of right and equal sizes."""
    if not zipfile.is_zipfile(file):
        raise UnusableFile("this is no .npz file")
    try:
        with np.load(file, allow_pickle=False) as content:
            held = [*content]
            found = {key: content[key] for key in ("embeddings", *NAMES) if key in content}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        hint = "; save strings as np.array(paths, dtype=str)" if "pickle" in str(error) else ""
        raise UnusableFile(f"its arrays cannot be read: {error}{hint}") from None
    if "embeddings" not in found or len(found) != 2:
        raise UnusableFile(f"it holds {', '.join(held)}; needed are embeddings, and path or id")
    vectors = found.pop("embeddings")
    ((column, names),) = found.items()
    if names.dtype.kind == "S":
        names = np.char.decode(names, "utf-8")
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.shape[1]:
        shape = f"{vectors.dtype} {vectors.shape}"
        raise UnusableFile(f"embeddings are {shape}, and not floating-point numbers (n, D)")
    if names.ndim != 1 or names.dtype.kind not in NAMES[column]:
        kind = {"path": "strings", "id": "integers"}[column]
        raise UnusableFile(f"{column} is {names.dtype} {names.shape}, and not {kind} (n,)")
    if len(names) != len(vectors):
        raise UnusableFile(f"{len(vectors)} embeddings of {len(names)} images")
    return column, names, vectors


def _some(names: Collection[Any]) -> str:
    shown = [*map(str, names)]
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return ", ".join(shown[:SHOWN]) + more
