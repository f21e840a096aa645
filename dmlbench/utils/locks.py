"""Kernel locks on files: they die with their process, however it ends.

They hold among the machines of a cluster if its file system has them (NFS, Lustre mounted with
`flock`). Where it has none, an error says so: work without a lock could damage results.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from dmlbench.utils.errors import WrongEnvironment

UNSUPPORTED = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL})
"""What a file system without locks answers."""


def try_lock(file: TextIO | int, path: Path, *, shared: bool = False) -> bool:
    """Lock an open file until it is closed; answer whether that was possible.

    Args:
        file: the open file, or its descriptor.
        path: its path, for the error.
        shared: others may have a shared lock at the same time.

    Raises:
        WrongEnvironment: the file system has no locks.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "lock")
    >>> with path.open("w") as first, path.open("w") as second:
    ...     try_lock(first, path), try_lock(second, path)
    (True, False)
    """
    return _lock(file, path, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def wait_for_lock(file: TextIO, path: Path, message: str) -> None:
    """Lock an open file until it is closed. If another process has it, print `message` and wait.

    Raises:
        WrongEnvironment: the file system has no locks.
    """
    if not try_lock(file, path):
        print(message, file=sys.stderr, flush=True)
        _lock(file, path, fcntl.LOCK_EX)


@contextlib.contextmanager
def locked(path: Path, message: str) -> Iterator[None]:
    """Hold the lock file `path`, which is created; print `message` before waiting for it.

    Raises:
        OSError: the file cannot be created.
        WrongEnvironment: the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        wait_for_lock(file, path, message)
        yield


def _lock(file: TextIO | int, path: Path, kind: int) -> bool:
    try:
        fcntl.flock(file, kind)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        raise WrongEnvironment(
            f"{path}: this file system has no file locks (flock: {error.strerror}), and without "
            "them two jobs could damage each other's results. Keep the project and its data on a "
            "file system that has them, or ask its administrator: Lustre has them with the mount "
            "option `flock`, NFS with version 4."
        ) from None
    return True
