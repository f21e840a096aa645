"""The data folder, and writing files so that no reader sees an incomplete one."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import secrets
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from dmlbench.utils.disk import disk_error
from dmlbench.utils.errors import WrongEnvironment
from dmlbench.utils.reading import read_bytes

MAX_JSON_BYTES = 100_000_000
"""Of a file in JSON. It is read in about two seconds."""


def data_folder() -> Path:
    """The folder of archives, packed stores and weights: DMLBENCH_DATA, or ./data.

    Raises:
        WrongEnvironment: DMLBENCH_DATA is a file.
    """
    folder = Path(os.environ.get("DMLBENCH_DATA") or "data")
    if folder.exists() and not folder.is_dir():
        problem = "it is a file, and the data is in a folder."
        raise WrongEnvironment(f"DMLBENCH_DATA={folder}: {problem} Name a folder, or unset it.")
    return folder


def file_state(path: Path) -> list[int]:
    """Numbers that change if the file `path` is written or replaced.

    Raises:
        OSError: it cannot be read.
    """
    stat = path.stat()
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`. The file becomes `path` when the block ends.

    A reader sees the old file or the new one. Several processes, also of several machines, may
    write at the same time. What killed processes left in this folder is removed.

    Raises:
        DiskError: the disk is full, read-only or broken, whatever the library says that wrote.
    """
    # longer names would be refused; numpy and matplotlib look at the suffix
    owner = f"{platform.node()[:64]}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name[:100]}.tmp-{owner}{path.suffix[:20]}")
    _written_here.add(temporary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:  # a machine that dies must not leave an empty file
            os.fsync(file.fileno())
        temporary.replace(path)
    except Exception as error:
        if problem := disk_error(error, path.parent):
            raise problem from error
        raise
    finally:
        _written_here.discard(temporary)
        with contextlib.suppress(OSError):  # it was renamed; or the disk is broken
            temporary.unlink()
    if path.parent not in _cleaned:
        _cleaned.add(path.parent)
        remove_leftovers(path.parent)


_written_here: set[Path] = set()
"""The temporary files that this process writes now."""
_cleaned: set[Path] = set()
"""The folders that this process has cleaned: once is enough, as leftovers are rare."""
_TEMPORARY = re.compile(r"\..+\.tmp-(?P<host>.*)-(?P<process>\d{1,9})-[0-9a-f]{8}(\.[^.]*)?")
MAX_WRITING_SECONDS = 3600.0
"""A temporary file of another machine that did not change for so long is left over."""


def keep_only(kept: Collection[Path], folder: Path) -> None:
    """Remove all files below `folder` but those of `kept`, and the folders that are then empty."""
    for path in sorted(folder.rglob("*"), reverse=True):  # what a folder holds, then the folder
        if path.is_dir():
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()
        elif path not in kept:
            path.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files in `folder` that `replacing` of a killed process left there."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            name = _TEMPORARY.fullmatch(path.name)
            with contextlib.suppress(OSError):  # another process may remove it too
                if name and _is_left_over(path, name["host"], int(name["process"])):
                    path.unlink()


def _is_left_over(temporary: Path, host: str, process: int) -> bool:
    """Whether nobody writes to `temporary` any more."""
    if host != platform.node()[:64]:
        return time.time() - temporary.stat().st_mtime > MAX_WRITING_SECONDS
    if process == os.getpid():
        return temporary not in _written_here
    return not is_alive(process)


def is_alive(process: int) -> bool:
    """Whether the process with this number runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    with contextlib.suppress(OSError):  # no /proc: not Linux
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in ("Z", "X")  # a zombie is dead, and its number is still taken
    return True


def write_json(path: Path, value: Any) -> None:
    """Write `value` to the file `path`, which is replaced at once."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path) -> Any:
    """The content of the JSON file `path`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON.
    """
    try:
        return json.loads(read_bytes(path, MAX_JSON_BYTES).decode())
    except RecursionError:
        raise ValueError("its lists are nested too deeply") from None


def read_json_if_whole(path: Path) -> Any | None:
    """The content of `path`; None if it is missing or damaged, and can be made again."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None
