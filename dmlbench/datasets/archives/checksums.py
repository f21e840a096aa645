"""Checksums of large files, remembered: hashing 120 GB again would take minutes."""

from __future__ import annotations

import contextlib
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from dmlbench.utils.files import read_json_if_whole, write_json
from dmlbench.utils.progress_bar import ProgressBar

CHUNK = 2**22
"""Bytes that are hashed at a time."""


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
    digest = hashlib.new(algorithm, usedforsecurity=False)
    done = 0
    with path.open("rb") as file, ProgressBar(f"verify {path.name}", path.stat().st_size) as bar:
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
