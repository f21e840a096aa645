"""Embeddings from another program: a frozen foundation model, or another code base."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmlbench.utils.errors import UnusableFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.datasets.store.reader import Store

NAMES = {"path": "U", "id": "iu"}
"""The arrays that name the images, with their kinds of numpy. A file needs one of them."""
MAX_SHOWN = 5
"""Most images that a message names."""


def read_embeddings(file: Path, store: Store, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Read the embeddings of the images `rows` of the store's index.

    Args:
        file: an .npz with `embeddings` (n, D) and either `path` (n,), as in the index, or `id`
            (n,), rows of the index. Other images of the data set may be in it and are left out.
        rows: (N,).

    Returns:
        (N, D).

    Raises:
        UnusableFile: the file does not hold one embedding for each of the images.
    """
    try:
        column, names, vectors = _read_arrays(file)
        known = store.index[column]
        return _pick(vectors, names.tolist(), known[rows].tolist(), {*known.tolist()})
    except UnusableFile as error:
        raise UnusableFile(f"{file}: {error}") from None


def _pick(
    vectors: NDArray[np.floating], names: list[Any], wanted: list[Any], known: set[Any]
) -> NDArray[np.float32]:
    """The vector of each wanted image, as float32."""
    row_of = {name: row for row, name in enumerate(names)}
    if repeated := [name for row, name in enumerate(names) if row_of[name] != row]:
        raise UnusableFile(f"more than one embedding of {_some(repeated)}")
    if unknown := sorted(row_of.keys() - known):
        raise UnusableFile(f"images that the data set does not have: {_some(unknown)}")
    if missing := [name for name in wanted if name not in row_of]:
        count = f"{len(missing)} of {len(wanted)} test images"
        raise UnusableFile(f"{count} have no embedding: {_some(missing)}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        chosen = vectors[[row_of[name] for name in wanted]].astype(np.float32)
    if bad := np.flatnonzero(~np.isfinite(chosen).all(axis=1)).tolist():
        images = _some([wanted[row] for row in bad])
        raise UnusableFile(f"{len(bad)} embeddings hold NaN or infinity: {images}")
    return chosen


def _read_arrays(file: Path) -> tuple[str, NDArray[Any], NDArray[np.floating]]:
    """The name in NAMES that the file has, that array, and `embeddings`, with valid shapes."""
    if not zipfile.is_zipfile(file):
        raise UnusableFile("this is not an .npz file")
    try:
        with np.load(file, allow_pickle=False) as content:
            present = [*content]
            arrays = {key: content[key] for key in ("embeddings", *NAMES) if key in content}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        hint = "; save strings as np.array(paths, dtype=str)" if "pickle" in str(error) else ""
        raise UnusableFile(f"its arrays cannot be read: {error}{hint}") from None
    if "embeddings" not in arrays or len(arrays) != 2:
        raise UnusableFile(
            f"it holds {', '.join(present)}; it must hold embeddings, and either path or id"
        )
    vectors = arrays.pop("embeddings")
    ((column, names),) = arrays.items()
    if names.dtype.kind == "S":
        names = np.char.decode(names, "utf-8")
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.shape[1]:
        shape = f"{vectors.dtype} {vectors.shape}"
        raise UnusableFile(f"embeddings are {shape}; they must be floating-point numbers (n, D)")
    if names.ndim != 1 or names.dtype.kind not in NAMES[column]:
        kind = {"path": "strings", "id": "integers"}[column]
        raise UnusableFile(f"{column} is {names.dtype} {names.shape}; it must be {kind} (n,)")
    if len(names) != len(vectors):
        raise UnusableFile(f"{len(vectors)} embeddings of {len(names)} images")
    return column, names, vectors


def _some(names: Collection[Any]) -> str:
    """The first names, and the number of the others."""
    shown = [*map(str, names)]
    more = f" and {len(shown) - MAX_SHOWN} more" if len(shown) > MAX_SHOWN else ""
    return ", ".join(shown[:MAX_SHOWN]) + more
