"""Opening the files that users name: a pipe would wait for ever, and a device has no end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from dmlbench.utils.text import format_bytes

KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
SYSTEM = ("dev", "proc", "sys")


def open_file(path: Path) -> BinaryIO:
    """Open the file `path` for reading, if it is a regular file.

    Raises:
        OSError: it cannot be read, or is a folder, a pipe or a device.
    """
    # O_NONBLOCK: opening a pipe does not wait for its writer
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        if kind == stat.S_IFDIR:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        problem = f"it is {KINDS.get(kind, 'no file')}, and not a file"
        raise OSError(errno.EINVAL, problem, str(path))
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, most: int) -> bytes:
    """The content of the file `path`.

    Args:
        most: bytes that it may have. Memory holds all of them.

    Raises:
        OSError: it cannot be read, is no regular file, or has more bytes.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > most else file.read(most + 1)  # files in /proc have the size 0
    if max(size, len(content)) > most:
        shown = "more" if size <= most else format_bytes(size)
        problem = f"it has {shown}, and {format_bytes(most)} are the most that is read"
        raise OSError(errno.EFBIG, problem, str(path))
    return content


def read_end(path: Path, most: int) -> str:
    """The last `most` bytes of the file `path` as text, with a mark where they are no text.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most))
        return file.read().decode("utf-8", "replace")


def is_system_folder(path: Path) -> bool:
    """Whether `path` is the root of all folders, or one in which the system shows itself."""
    real = path.resolve()
    return str(real) == real.anchor or any(real.is_relative_to(f"/{top}") for top in SYSTEM)
