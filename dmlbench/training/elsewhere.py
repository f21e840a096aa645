"""Embeddings that were made elsewhere: a frozen foundation model's, another code base's."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.datasets.store import Store

SHOWN = 5
KEYS = ("path", "id")


class UnusableFile(ValueError):
    """The file does not hold an embedding for each test image; the message says what is wrong."""


def read_embeddings(file: Path, store: Store, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Embeddings (len(rows), D) of the images `rows` of the store's index, from an .npz with
    `embeddings` (n, D) and either `path` (n,), as in the index, or `id` (n,), rows of the index.

    Images of the data set beyond `rows` may be in the file and are left out. Raises UnusableFile.
    """
    try:
        found = _arrays(file)
        vectors, names = found["embeddings"], found["names"]
        column = "path" if names.dtype.kind == "U" else "id"
        known = store.index[column]
        place = {name: number for number, name in enumerate(names.tolist())}
        wanted = known[rows].tolist()
        if len(place) < len(names):
            twice = [name for number, name in enumerate(names.tolist()) if place[name] != number]
            raise UnusableFile(f"more than one embedding of {_some(twice)}")
        if unknown := place.keys() - set(known.tolist()):
            raise UnusableFile(f"images that the data set does not have: {_some(sorted(unknown))}")
        if missing := [name for name in wanted if name not in place]:
            raise UnusableFile(
                f"{len(missing)} of {len(rows)} test images have no embedding: {_some(missing)}"
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused
            taken = vectors[[place[name] for name in wanted]].astype(np.float32)
        if len(bad := np.flatnonzero(~np.isfinite(taken).all(axis=1))):
            which = _some([wanted[row] for row in bad])
            raise UnusableFile(f"{len(bad)} embeddings hold NaN or infinity: {which}")
    except UnusableFile as error:
        raise UnusableFile(f"{file}: {error}") from None
    return taken


def _arrays(file: Path) -> dict[str, NDArray[Any]]:
    """The arrays `embeddings` and `names` (str or int) of the file, of right and equal sizes."""
    try:
        with np.load(file, allow_pickle=False) as content:
            if "embeddings" not in content or sum(key in content for key in KEYS) != 1:
                raise UnusableFile(
                    f"it holds {', '.join(content)}; needed are embeddings, and path or id"
                )
            vectors = content["embeddings"]
            (names,) = (content[key] for key in KEYS if key in content)
            is_path = "path" in content
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        if isinstance(error, UnusableFile):
            raise
        hint = "; save strings as np.array(paths, dtype=str)" if "pickle" in str(error) else ""
        raise UnusableFile(f"this is no .npz of plain arrays: {error}{hint}") from None
    if is_path and names.dtype.kind == "S":
        names = np.char.decode(names, "utf-8")
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.shape[1]:
        shape = f"{vectors.dtype} {vectors.shape}"
        raise UnusableFile(f"embeddings are {shape}, and not floating-point numbers (n, D)")
    if names.ndim != 1 or names.dtype.kind not in ("U" if is_path else "iu"):
        kind = "path: strings" if is_path else "id: integers"
        raise UnusableFile(f"{kind} (n,) are needed, found {names.dtype} {names.shape}")
    if len(names) != len(vectors):
        raise UnusableFile(f"{len(vectors)} embeddings of {len(names)} images")
    return {"embeddings": vectors, "names": names}


def _some(names: Iterable[object]) -> str:
    shown = [*map(str, names)]
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return ", ".join(shown[:SHOWN]) + more
