"""Leases give each job its GPU, by kernel file locks that all users of a machine share.

Snakemake's `resources: gpu` limits how many jobs run; the lease decides which GPU each gets. A lock
dies with its process, so nothing stays leased however a job ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

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
    """Let this process and its children use only the `count` GPUs that are the least busy now."""
    gpus, folder = visible_gpus(), _shared_folder()
    chosen = sorted(gpus, key=lambda gpu: _count_runs(folder / gpu))[:count]
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
    """
    if not gpus:
        yield None
        return
    folder = folder or _shared_folder()
    with ExitStack() as held, ExitStack() as queue:
        reserved: str | None = None
        while True:
            shuffled = random.sample(gpus, len(gpus))
            for gpu in sorted(shuffled, key=lambda name: _count_runs(folder / name)):
                if _acquire(held, folder / gpu, runs, gpu == reserved):
                    queue.close()
                    yield gpu
                    return
            # later runs wait behind this one: those that share a GPU could keep it out for ever
            if not reserved and _lock(queue, _door(folder / shuffled[0]), fcntl.LOCK_EX):
                reserved = shuffled[0]
            while_waiting()
            time.sleep(random.uniform(0.05, 0.3))


def _acquire(held: ExitStack, gpu: Path, runs: int, reserved: bool) -> bool:
    """Take one of the first `runs` places of `gpu`, and keep the others from being taken.

    A run has an exclusive lock on its place, and shared locks on all places from number `runs` on.
    So there are never more runs than the strictest of them allows.
    """
    places = _places(gpu)
    with ExitStack() as passing, ExitStack() as locks:
        if (
            (reserved or _lock(passing, _door(gpu), fcntl.LOCK_SH))
            and all(_lock(locks, place, fcntl.LOCK_SH) for place in places[runs:])
            and any(_lock(locks, place, fcntl.LOCK_EX) for place in places[:runs])
        ):
            held.enter_context(locks.pop_all())
            return True
    return False


def _count_runs(gpu: Path) -> int:
    """How many runs hold a place at `gpu`."""
    with ExitStack() as locks:
        return sum(not _lock(locks, place, fcntl.LOCK_SH) for place in _places(gpu))


def _places(gpu: Path) -> list[Path]:
    return [gpu.with_name(f"{gpu.name}.{number}") for number in range(MAX_RUNS_PER_GPU)]


def _door(gpu: Path) -> Path:
    """The lock that a run passes to get a place; the first in the queue keeps it closed."""
    return gpu.with_name(f"{gpu.name}.door")


def _lock(locks: ExitStack, path: Path, kind: int) -> bool:
    """Lock `path` until `locks` is closed; answer whether that was possible."""
    try:
        file = os.open(path, os.O_RDONLY)  # O_CREAT would be refused another user's
    except FileNotFoundError:
        file = os.open(path, os.O_RDONLY | os.O_CREAT)
        os.fchmod(file, 0o644)  # whatever the umask
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    locks.callback(os.close, file)
    return True


def _shared_folder() -> Path:
    """The folder of the locks, which all users of this machine share."""
    folder = Path(tempfile.gettempdir()) / "dmlbench-gpus"
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o1777)  # whatever the umask
    return folder
