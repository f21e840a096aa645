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
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from dmlbench.utils.cuda_devices import list_devices
from dmlbench.utils.device import DEVICE, VISIBLE
from dmlbench.utils.errors import NoFreeGpu, WrongEnvironment
from dmlbench.utils.gpus import describe_device, find_gpus
from dmlbench.utils.locks import try_lock
from dmlbench.utils.text import format_duration

MAX_RUNS_PER_GPU = 16
"""Most runs that share a GPU: each GPU has this many places."""
LISTED = "DMLBENCH_GPUS"
"""The variable in which a study leaves its jobs the value that it gave CUDA_VISIBLE_DEVICES. Where
the two are equal, the value holds UUIDs of usable GPUs, and no job asks nvidia-smi again."""
HELD = "DMLBENCH_LEASED_GPU"
"""The variable in which a process that holds a lease leaves its children the UUID of its GPU."""
PATIENCE = 2.0
"""Seconds after which a process that waits for a GPU says so."""
KERNEL_LOCKS = Path("/proc/locks")


class Lease(NamedTuple):
    """A place at a GPU."""

    gpu: str
    """The UUID of the GPU."""
    runs: int
    """The most runs that may share the GPU, this one included."""


@contextlib.contextmanager
def lease_gpu(
    runs: int = 1, give_up: Callable[[], object] = lambda: False
) -> Iterator[Lease | None]:
    """Hold a place at one of the GPUs that this process may use, and let CUDA see only that one.

    Yield None if there is no GPU. Call it before torch looks for one: for the rest of this process,
    the GPU is the only one. The processes that it starts use the same place.

    Args:
        runs: most runs that may share the GPU, this one included. A GPU that takes one process at
            a time is not shared.
        give_up: as `lease` takes it.

    Raises:
        UnusableGpu: there are GPUs, and this process may use none.
        NoFreeGpu: `give_up` said so.
        WrongEnvironment: another user made the folder of the locks, or a lock, something else.

    >>> with lease_gpu() as place:  # doctest: +SKIP
    ...     print(place.gpu)
    GPU-8932f937-d72c-4106-c12f-20bd9faed9f6
    """
    visible = os.environ.get(VISIBLE)
    if visible and visible == os.environ.get(HELD):
        yield Lease(visible, runs)
        return
    if visible and visible == os.environ.get(LISTED):
        names = visible.split(",")
    else:
        gpus = find_gpus()
        gpus.check()
        names = [gpu.uuid for gpu in gpus.usable]
        runs = 1 if gpus.find_exclusive(runs) else runs
    with lease(names, runs, give_up) as gpu:
        if gpu is None:
            yield None
            return
        os.environ |= {VISIBLE: gpu, HELD: gpu}
        try:
            yield Lease(gpu, runs)
        finally:
            del os.environ[HELD]


@contextlib.contextmanager
def lease_device(device: str) -> Iterator[None]:
    """Hold a place at the GPU that torch calls `device` in this process; none if it is no GPU.

    Raises:
        WrongEnvironment: another user made the folder of the locks, or a lock, something else.

    >>> with lease_device("cpu"):
    ...     pass
    """
    import torch

    chosen = torch.device(device)
    if chosen.type != "cuda":
        yield
        return
    torch.cuda.init()  # from now on, the driver tells this process the order of torch
    number = torch.cuda.current_device() if chosen.index is None else chosen.index
    gpu = describe_device(list_devices()[number]).uuid
    with lease([] if gpu == os.environ.get(HELD) else [gpu]):
        yield


def hand_down_gpus(gpus: Sequence[str], count: int | None = None) -> None:
    """Let this process and its children use only `gpus`, which the children need not look up.

    Args:
        gpus: their UUIDs.
        count: use only this many, those that are the least busy now; None: use all.

    Raises:
        WrongEnvironment: another user made the folder of the locks, or a lock, something else.
    """
    chosen = [*gpus]
    if count is not None and count < len(gpus):
        with _open_folder(None) as folder:
            chosen = sorted(gpus, key=lambda gpu: _count_runs(_Gpu(folder, gpu)))[:count]
    os.environ |= dict.fromkeys((VISIBLE, LISTED), ",".join(chosen))


@contextlib.contextmanager
def lease(
    gpus: Sequence[str],
    runs: int = 1,
    give_up: Callable[[], object] = lambda: False,
    folder: Path | None = None,
) -> Iterator[str | None]:
    """Hold a place at one of `gpus` and yield its UUID; yield None if there are no GPUs.

    A GPU without runs is taken before one that is shared. A line on the standard error says when a
    run begins to wait.

    Args:
        gpus: their UUIDs.
        runs: most runs that may share the GPU, this one included.
        give_up: called again and again while no place is free. It says whether to wait no longer.
        folder: where the locks lie; by default the folder that all users of the machine share.

    Raises:
        NoFreeGpu: `give_up` said so.
        WrongEnvironment: another user made the folder of the locks, or a lock, something else.
    """
    if not gpus:
        yield None
        return
    with _open_folder(folder) as opened, ExitStack() as held, ExitStack() as queue:
        reserved: _Gpu | None = None
        began = time.monotonic()
        is_announced = False
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
            seconds = time.monotonic() - began
            if give_up():
                users = _describe_users(shuffled)
                raise NoFreeGpu(f"no GPU became free in {format_duration(seconds)}: {users}")
            if not is_announced and seconds > PATIENCE:
                is_announced = True
                users = _describe_users(shuffled)
                advice = f"{DEVICE}=cpu computes on the CPU at once"
                print(f"waiting for a GPU: {users}. {advice}", file=sys.stderr, flush=True)
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
    name, folder = _file_name(gpu, place), gpu.folder
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


def _file_name(gpu: _Gpu, place: int | str) -> str:
    """The name of a lock: that of an old MIG slice, MIG-GPU-<card>/1/0, holds what no file may."""
    return f"{quote(gpu.name, safe='')}.{place}"


def _describe_users(gpus: Sequence[_Gpu]) -> str:
    """Who uses each of `gpus`, as far as the kernel tells."""
    holders = _find_holders()
    texts = []
    for gpu in sorted(gpus):
        users = []
        for place in range(MAX_RUNS_PER_GPU):
            with contextlib.suppress(OSError, KeyError):
                status = os.stat(_file_name(gpu, place), dir_fd=gpu.folder.descriptor)
                process = holders[status.st_dev, status.st_ino]
                owner = pwd.getpwuid(Path(f"/proc/{process}").stat().st_uid).pw_name
                users.append(f"process {process} of {owner}")
        texts.append(f"{gpu.name} is used by {', '.join(users) or 'others'}")
    return "; ".join(texts)


def _find_holders() -> dict[tuple[int, int], int]:
    """Device and inode of each file that is locked -> the process that holds its exclusive lock."""
    holders = {}
    with contextlib.suppress(OSError):  # not every system has this file
        for line in KERNEL_LOCKS.read_text().splitlines():
            # 7: FLOCK  ADVISORY  WRITE 4711 08:01:131073 0 EOF
            match line.split():
                case [_, "FLOCK", _, "WRITE", process, file, *_]:
                    major, minor, inode = file.split(":")
                    device = os.makedev(int(major, 16), int(minor, 16))
                    holders[device, int(inode)] = int(process)
    return holders


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
