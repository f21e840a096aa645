"""Checksums of large files, remembered: hashing 120 GB again would take minutes."""

from __future__ import annotations

import contextlib
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from dmlbench.utils.errors import DatasetError
from dmlbench.utils.files import read_json_if_whole, write_json
from dmlbench.utils.progress_bar import ProgressBar
from dmlbench.utils.text import short_repr

CHUNK = 2**22
"""Bytes that are hashed at a time."""
GIT = "git"
"""The algorithm of git's own names of files, by which a hub names its small files."""


DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
"""Hex digits of each algorithm that a checksum may name."""


def parse_checksum(text: object, name: str) -> str:
    """The checksum that a person gave for the archive `name`, in lower case.

    Raises:
        DatasetError: it is not an algorithm, a colon and its hex digits; the text says why.

    >>> parse_checksum("MD5:97eeceeb196236b17998738112f37df7", "a.zip")
    'md5:97eeceeb196236b17998738112f37df7'
    """
    where = f"checksums: {name}"
    if not isinstance(text, str):
        raise DatasetError(f'{where}: {short_repr(text)} is no text as "md5:..." or "sha256:..."')
    algorithm, colon, digits = text.strip().lower().rpartition(":")
    is_hex = bool(digits) and set(digits) <= set("0123456789abcdef")
    if not colon:
        by_length = {length: name for name, length in DIGITS.items()}
        likely = f"{by_length.get(len(digits), 'md5')}:{digits if is_hex else '...'}"
        shown = short_repr(text)
        raise DatasetError(f'{where}: {shown} does not begin with its algorithm: write "{likely}"')
    if algorithm not in DIGITS:
        raise DatasetError(
            f"{where}: {short_repr(algorithm)} is not one of the algorithms {', '.join(DIGITS)}"
        )
    if not is_hex:
        raise DatasetError(f"{where}: {short_repr(digits)} are no hex digits (0-9, a-f)")
    if len(digits) != DIGITS[algorithm]:
        raise DatasetError(
            f"{where}: {algorithm} has {DIGITS[algorithm]} hex digits, and these are "
            f"{len(digits)}: {digits}"
        )
    return f"{algorithm}:{digits}"


def checksum(path: Path, algorithm: str) -> str:
    """The checksum of the file at `path`, as "md5:...".

    It is remembered until the size or the time of change of the file differs: next to the file, in
    .NAME.checksum.json, or in this process if that file cannot be written.
    """
    state = _state(path)
    note = read_json_if_whole(_note_path(path))
    if isinstance(note, dict) and note.get("state") == state and algorithm in note:
        return f"{algorithm}:{note[algorithm]}"
    computed = _compute_once(path, algorithm, *state.values())
    remember(path, computed)
    return computed


def remember(path: Path, checksum: str) -> None:
    """Note that `checksum` is the checksum of the present content of `path`."""
    algorithm, _, digest = checksum.partition(":")
    with contextlib.suppress(OSError):  # the folder may belong to other people
        write_json(_note_path(path), {"state": _state(path), algorithm: digest})


def compute(path: Path, algorithm: str) -> str:
    """Compute the checksum of the file at `path`, as "md5:...", and ignore what is remembered."""
    size, done = path.stat().st_size, 0
    digest = hashlib.new("sha1" if algorithm == GIT else algorithm, usedforsecurity=False)
    if algorithm == GIT:
        digest.update(b"blob %d\0" % size)
    with path.open("rb") as file, ProgressBar(f"verify {path.name}", size) as bar:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.show(done := done + len(chunk))
    return f"{algorithm}:{digest.hexdigest()}"


@lru_cache
def _compute_once(path: Path, algorithm: str, *_state: int) -> str:
    return compute(path, algorithm)


def _state(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _note_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.checksum.json")
