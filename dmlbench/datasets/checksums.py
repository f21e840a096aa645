"""Checksums of large files, computed once: a second look at 120 GB takes no minutes."""

from __future__ import annotations

import contextlib
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from dmlbench.datasets.bar import Bar
from dmlbench.files import read_json_if_whole, write_json

CHUNK = 2**22


def checksum(path: Path, algorithm: str) -> str:
    """Checksum of the file at `path`, as "md5:...".

    It is remembered for as long as size and time of change stay: beside the file, in
    .NAME.checksum.json, and in this process where that cannot be written.
    """
    state = _state(path)
    kept = read_json_if_whole(_note(path))
    if isinstance(kept, dict) and kept.get("state") == state and algorithm in kept:
        return f"{algorithm}:{kept[algorithm]}"
    found = _computed(path, algorithm, *state.values())
    remember(path, found)
    return found


def remember(path: Path, found: str) -> None:
    """Note that `found` is the checksum of what is at `path` now."""
    algorithm, _, digest = found.partition(":")
    with contextlib.suppress(OSError):  # a folder that others own
        write_json(_note(path), {"state": _state(path), algorithm: digest})


def compute(path: Path, algorithm: str) -> str:
    """Checksum of the file at `path`, as "md5:...", whatever is remembered of it."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    done = 0
    with path.open("rb") as file, Bar(f"verify {path.name}", path.stat().st_size) as bar:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.show(done := done + len(chunk))
    return f"{algorithm}:{digest.hexdigest()}"


@lru_cache
def _computed(path: Path, algorithm: str, *_state: int) -> str:
    return compute(path, algorithm)


def _state(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _note(path: Path) -> Path:
    return path.with_name(f".{path.name}.checksum.json")
