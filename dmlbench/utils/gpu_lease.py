"""Leases give each job its GPU, by kernel file locks that all users of a machine share.

Snakemake's `resources: gpu` limits how many jobs run; the lease decides which GPU each gets. A lock
dies with its process, so nothing stays leased however a job ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import random
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from dmlbench.utils.errors import WrongEnvironment
from dmlbench.utils.locks import try_lock

MAX_RUNS_PER_GPU = 16
"""Most runs that share a GPU: each GPU has this many places."""
GPU_NOT_SEEN = "torch does not see the GPU"


def visible_gpus(environ: Mapping[str, str] = os.environ) -> list[str]:
    """UUIDs of the GPUs that this process may use; empty if there is none.

    CUDA_VISIBLE_DEVICES may hold indices, which mean other GPUs in other processes (SLURM counts
    from 0 in each job). They are translated to UUIDs.
    """
    if shutil.which("nvidia-smi", path=environ.get("PATH")) is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # it cannot be run, or finds no driver
        return []
    rows = (line.split(",") for line in listing.stdout.splitlines() if "," in line)
    uuids = {index.strip(): uuid.strip() for index, uuid in rows}
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return list(uuids.values())
    names = [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    return [uuids.get(name, name) for name in names]


def restrict_gpus(count: int) -> None:
    """Let this process and its children use only the `count` GPUs that are the least busy now.

    Raises:
        WrongEnvironment: another user made the folder of the locks, or a lock, something else.
    """
    chosen: list[str] = []
    if count and (gpus := visible_gpus()):
        with _open_folder(None) as folder:
            chosen = sorted(gpus, key=lambda gpu: _count_runs(_Gpu(folder, gpu)))[:count]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)


@contextlib.contextmanager
def lease(
    gpus: list[str],
    runs: int = 1,
    while_waiting: Callable[[], None] = lambda: None,
    folder: Path | None = None,
) -> Iterator[str | None]:
    """Hold a place at one of `gpus` and yield its UUID; yield None if there are no GPUs.

    A GPU without runs is taken before one that is shared.

    Args:
        runs: most runs that may share the GPU, this one included.
        while_waiting: called again and again while no place is free; it may raise.
        folder: where the locks lie; by default the folder that all users of the machine share.

    Raises:
        WrongEnvironment: another user made the folder of the locks, or a lock, something else.
    """
    if not gpus:
        yield None
        return
    with _open_folder(folder) as opened, ExitStack() as held, ExitStack() as queue:
        reserved: _Gpu | None = None
        while True:
            shuffled = [_Gpu(opened, gpu) for gpu in random.sample(gpus, len(gpus))]
            for gpu in sorted(shuffled, key=_count_runs):
                if _acquire(held, gpu, runs, gpu == reserved):
                    queue.close()
                    yield gpu.name
                    return
            # later runs wait behind this one: those that share a GPU could keep it out for ever
            if not reserved and _lock(queue, shuffled[0], DOOR, fcntl.LOCK_EX):
                reserved = shuffled[0]
            while_waiting()
            time.sleep(random.uniform(0.05, 0.3))


class _Gpu(NamedTuple):
    """A GPU, and the folder in which its locks are."""

    folder: _Folder
    name: str


class _Folder(NamedTuple):
    """An open folder: nobody can put another one in its place."""

    descriptor: int
    path: Path


DOOR = "door"
"""The lock that a run passes to get a place; the first in the queue keeps it closed."""


def _acquire(held: ExitStack, gpu: _Gpu, runs: int, reserved: bool) -> bool:
    """Take one of the first `runs` places of `gpu`, and keep the others from being taken.

    A run has an exclusive lock on its place, and shared locks on all places from number `runs` on.
    So there are never more runs than the strictest of them allows.
    """
    places = range(MAX_RUNS_PER_GPU)
    with ExitStack() as passing, ExitStack() as locks:
        if (
            (reserved or _lock(passing, gpu, DOOR, fcntl.LOCK_SH))
            and all(_lock(locks, gpu, place, fcntl.LOCK_SH) for place in places[runs:])
            and any(_lock(locks, gpu, place, fcntl.LOCK_EX) for place in places[:runs])
        ):
            held.enter_context(locks.pop_all())
            return True
    return False


def _count_runs(gpu: _Gpu) -> int:
    """How many runs hold a place at `gpu`."""
    with ExitStack() as locks:
        places = range(MAX_RUNS_PER_GPU)
        return sum(not _lock(locks, gpu, place, fcntl.LOCK_SH) for place in places)


def _lock(locks: ExitStack, gpu: _Gpu, place: int | str, kind: int) -> bool:
    """Lock a place of `gpu` until `locks` is closed; answer whether that was possible.

    The files are made by whoever comes first. Nothing is written to them, and no link is followed.
    """
    name, folder = f"{gpu.name}.{place}", gpu.folder
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe must not keep anybody waiting
    try:
        file = os.open(name, flags, dir_fd=folder.descriptor)
    except FileNotFoundError:
        try:
            file = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder.descriptor)
            os.fchmod(file, 0o644)  # whatever the umask
        except FileExistsError:  # made by another process right then
            return _lock(locks, gpu, place, kind)
        except OSError as error:
            raise _unusable(folder.path, str(error.strerror)) from None
    except OSError as error:
        problem = "a link" if error.errno == errno.ELOOP else str(error.strerror)
        raise _unusable(folder.path / name, problem) from None
    locked = False
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise _unusable(folder.path / name, "no plain file")
        locked = try_lock(file, folder.path / name, shared=kind == fcntl.LOCK_SH)
    finally:
        if not locked:
            os.close(file)
    if locked:
        locks.callback(os.close, file)
    return locked


@contextlib.contextmanager
def _open_folder(folder: Path | None) -> Iterator[_Folder]:
    """The folder of the locks: `folder`, or the one that all users of this machine share.

    Raises:
        WrongEnvironment: it is something else, or others could remove its files.
    """
    path = folder or Path(tempfile.gettempdir()) / "dmlbench-gpus"
    if folder is None:
        before = os.umask(0)  # at once for all users: another one may come right then
        try:
            with contextlib.suppress(FileExistsError):
                path.mkdir(0o1777)
        finally:
            os.umask(before)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        problem = "a link" if path.is_symlink() else str(error.strerror)
        raise _unusable(path, problem) from None
    try:
        status = os.fstat(descriptor)
        if folder is None and status.st_uid == os.getuid():
            os.fchmod(descriptor, 0o1777)  # an older one, or one that was copied
        elif status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            raise _unusable(path, "a folder in which everybody can remove what others made")
        yield _Folder(descriptor, path)
    finally:
        os.close(descriptor)


def _unusable(path: Path, problem: str) -> WrongEnvironment:
    """The error of a lock that cannot be used."""
    owner = ""
    with contextlib.suppress(OSError, KeyError):
        owner = f" of user {pwd.getpwuid(path.lstat().st_uid).pw_name}"
    return WrongEnvironment(
        f"{path}: this is {problem}{owner}. All users of this machine share its GPUs by the locks "
        "in that folder, so it is not used. Let its owner or the administrator remove it. If you "
        "are the only one, TMPDIR=<folder> uses another one."
    )
