"""Embeddings from another program: a frozen foundation model, or another code base."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmlbench.datasets.names import normalize_path
from dmlbench.utils.errors import UnusableFile
from dmlbench.utils.text import count_of, error_reason, some_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.datasets.store.reader import Store

NAMES = {"path": "U", "id": "iu"}
"""The arrays that name the images, with their kinds of numpy. A file needs one of them."""
Move = tuple[str, str]
"""The folder that is taken from the beginning of each path, and the one that is put there."""
MAX_SHOWN = 5
"""Most names in a message."""
MAX_CHARACTERS = 80
"""Most characters of a name in a message."""


def read_embeddings(file: Path, store: Store, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Read the embeddings of the images `rows` of the store's index.

    Args:
        file: an .npz with `embeddings` (n, D) and either `path` (n,), as in the index, or `id`
            (n,), rows of the index. Other images of the data set may be in it and are left out. The
            paths may all begin with the same folder, or all lack the same folder.
        rows: (N,).

    Returns:
        (N, D).

    Raises:
        UnusableFile: the file does not hold one embedding for each of the images.
    """
    try:
        column, names, vectors = read_arrays(file)
        known, listed = store.index[column], names.tolist()
        wanted = known[rows].tolist()
        if column == "path":
            listed = _as_in_index(listed, known.tolist(), wanted)
        return _pick(vectors, listed, wanted, {*known.tolist()})
    except UnusableFile as error:
        raise UnusableFile(f"{file}: {error}") from None


def _as_in_index(names: Sequence[str], known: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The paths `names` as the index spells them; a path that the index lacks stays as it is.

    `dmlbench embed` writes paths relative to the folder that it embeds, or to the current folder.
    So all of them may lack the same folder, or all may begin with one more.
    """
    by_form = {normalize_path(path): path for path in known} | {path: path for path in known}
    forms = [name if name in by_form else normalize_path(name) for name in names]
    strange = next((form for form in forms if form not in by_form), None)
    if strange is not None:
        moves = [move for move in _moves(strange, by_form) if _fits(forms, move, by_form)]
        if len(moves) > 1:
            needed = {*map(normalize_path, wanted)}
            moves = [move for move in moves if needed <= {_moved(form, move) for form in forms}]
        if len(moves) == 1:
            forms = [_moved(form, moves[0]) for form in forms]
    return [by_form.get(form, name) for form, name in zip(forms, names, strict=True)]


def _moves(path: str, known: Collection[str]) -> Iterator[Move]:
    """The moves that make `path` a known one."""
    for start in range(1, len(path)):
        if path[start - 1] == "/" and path[start:] in known:
            yield path[:start], ""
    for name in known:
        if name.endswith(f"/{path}"):
            yield "", name.removesuffix(path)


def _moved(path: str, move: Move) -> str:
    return move[1] + path.removeprefix(move[0])


def _fits(paths: Iterable[str], move: Move, known: Collection[str]) -> bool:
    return all(_moved(path, move) in known for path in paths)


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
        verb = "has" if len(missing) == 1 else "have"
        images = f"{len(missing)} of {count_of(len(wanted), 'test image')}"
        raise UnusableFile(f"{images} {verb} no embedding: {_some(missing)}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        chosen = vectors[[row_of[name] for name in wanted]].astype(np.float32)
    if bad := np.flatnonzero(~np.isfinite(chosen).all(axis=1)).tolist():
        images = _some([wanted[row] for row in bad])
        verb = "holds" if len(bad) == 1 else "hold"
        embeddings = count_of(len(bad), "embedding")
        raise UnusableFile(f"{embeddings} {verb} NaN or infinity: {images}")
    return chosen


def read_arrays(file: Path) -> tuple[str, NDArray[Any], NDArray[np.floating]]:
    """The name in NAMES that the file has, that array, and `embeddings`, with valid shapes."""
    _check_kind(file)
    try:
        with np.load(file, allow_pickle=False) as content:
            present = [*content]
            arrays = {key: content[key] for key in ("embeddings", *NAMES) if key in content}
    except Exception as error:  # parsers raise nearly anything for a damaged file
        hint = "; save strings as np.array(paths, dtype=str)" if "pickle" in str(error) else ""
        raise UnusableFile(f"its arrays cannot be read: {error_reason(error)}{hint}") from None
    if "curvature" in present:
        raise UnusableFile(
            "its embeddings are compared by hyperbolic distance, and those of a study by cosine: "
            "dmlbench.score(embeddings, labels, curvature=..., radius=...) scores them"
        )
    if "embeddings" not in arrays or len(arrays) != 2:
        held = _some(present) or "nothing"
        raise UnusableFile(f"it holds {held}; it must hold embeddings, and either path or id")
    vectors = arrays.pop("embeddings")
    ((column, names),) = arrays.items()
    if names.dtype.kind == "S":
        try:
            names = np.char.decode(names, "utf-8")
        except UnicodeDecodeError as error:
            raise UnusableFile(f"{column} is not UTF-8: {error.reason}") from None
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.shape[1]:
        shape = f"{vectors.dtype} {vectors.shape}"
        raise UnusableFile(f"embeddings are {shape}; they must be floating-point numbers (n, D)")
    if names.ndim != 1 or names.dtype.kind not in NAMES[column]:
        kind = {"path": "strings", "id": "integers"}[column]
        raise UnusableFile(f"{column} is {names.dtype} {names.shape}; it must be {kind} (n,)")
    if len(names) != len(vectors):
        images = count_of(len(names), "image")
        raise UnusableFile(f"{count_of(len(vectors), 'embedding')} of {images}")
    return column, names, vectors


def _check_kind(file: Path) -> None:
    """Refuse a file that is no zip, as an .npz is one.

    Raises:
        UnusableFile: with what it is.
    """
    try:
        with file.open("rb") as opened:
            start = opened.read(6)
    except OSError as error:
        raise UnusableFile(f"it cannot be read: {error.strerror}") from None
    if start == b"\x93NUMPY":
        raise UnusableFile(
            "this is an .npy file, which holds one array: save it with np.savez(file, "
            "embeddings=embeddings, path=paths)"
        )
    if not zipfile.is_zipfile(file):
        raise UnusableFile("this is not an .npz file" + ": it is empty" * (not start))


def _some(names: Collection[Any]) -> str:
    """The first names, and the number of the others."""
    return some_of(names, MAX_SHOWN, lambda name: " ".join(str(name).split())[:MAX_CHARACTERS])
