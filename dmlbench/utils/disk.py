"""Errors of a disk: it is full, read-only or broken."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from dmlbench.utils.errors import DiskError, error_chain
from dmlbench.utils.text import format_bytes

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""There is no room, or the user may not have more of it."""
LEAST_ROOM = 1_000_000
"""Bytes. With less, no job can write its result, and its log may lack the last lines."""
DISK_FULL = "the disk is full"
"""In the message about a disk that is full."""
DISK_STATUSES = ("disk_full", "disk_error")
"""Of runs that failed by an error of the disk."""
BROKEN = frozenset({errno.EROFS, errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.EFBIG})
"""It cannot be written, or read, for another reason."""


def disk_error(error: BaseException, folder: Path) -> DiskError | None:
    """The error for the user if `error` came from a disk that is full or broken; else None.

    Libraries hide the system's error: torch raises another one while it handles it, and those that
    are written in C++ or Rust keep only its text.

    Args:
        folder: where the file was to be written.

    >>> error = OSError(errno.ENOSPC, "No space left on device")
    >>> disk_error(error, Path("/")).status
    'disk_full'
    >>> disk_error(ValueError("no number"), Path("/")) is None
    True
    """
    for cause in error_chain(error):
        if isinstance(cause, DiskError):
            return cause
        if number := _error_number(cause):
            name = getattr(cause, "filename", None)
            return _describe(number, Path(name).parent if isinstance(name, str) else folder)
    return None


def find_full_disk(folder: Path) -> DiskError | None:
    """The error for the user if the disk of `folder` has no room for a result; else None."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    is_full = disk.f_bavail * disk.f_frsize < LEAST_ROOM
    is_full |= disk.f_files > 0 and disk.f_favail == 0
    return _describe(errno.ENOSPC, folder) if is_full else None


def _describe(number: int, folder: Path) -> DiskError:
    reason = os.strerror(number)
    if number in FULL:
        free, fix = _free_space(folder), "Make room there, and ask again: the work goes on."
        return DiskError("disk_full", f"{folder}: {DISK_FULL} ({reason}{free}). {fix}")
    fix = "Look at the disk, then ask again: the work goes on."
    return DiskError("disk_error", f"{folder}: the disk does not work ({reason}). {fix}")


def _error_number(error: BaseException) -> int | None:
    """The system's number of an error of the disk; None if it is another error."""
    known = FULL | BROKEN
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in known else None
    text = str(error)
    if "database or disk is full" in text:  # SQLite
        return errno.ENOSPC
    return next((number for number in known if os.strerror(number) in text), None)


def _free_space(folder: Path) -> str:
    """How much is free on the disk of `folder`, in words: a disk may be full of small files."""
    there = next((path for path in (folder, *folder.parents) if path.is_dir()), None)
    if there is None:
        return ""
    disk = os.statvfs(there)
    files = f", {disk.f_favail} more files" if disk.f_files else ""
    return f"; free: {format_bytes(disk.f_bavail * disk.f_frsize)}{files}"
