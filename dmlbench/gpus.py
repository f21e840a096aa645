"""Which GPU a job runs on: a lease by kernel file locks, whoever's workflow the job belongs to.

Snakemake's `resources: gpu` limits how many jobs run; the lease decides on which device. A lock
dies with its process, so nothing leaks however a job ends.
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

MOST = 16  # runs that share a GPU
NOT_SEEN = "torch does not see the GPU"
SCORED_FROM = 20_000
"""Test images from which scores are made on a GPU, where there is one: fewer take a CPU as long as
it takes to start a GPU, or some seconds more."""


def visible_gpus(environ: Mapping[str, str] = os.environ) -> list[str]:
    """UUIDs of the GPUs that this process may use; [] where there is none.

    CUDA_VISIBLE_DEVICES may hold indices, which mean other devices in other processes (SLURM
    numbers from 0 in each job): they are translated to UUIDs.
    """
    if shutil.which("nvidia-smi", path=environ.get("PATH")) is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False)
    if listing.returncode:
        return []
    rows = (line.split(",") for line in listing.stdout.splitlines() if "," in line)
    uuids = {index.strip(): uuid.strip() for index, uuid in rows}
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return list(uuids.values())
    names = [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    return [uuids.get(name, name) for name in names]


def keep_to(count: int) -> None:
    """Leave all but `count` of the GPUs, those that are the least busy now, to others."""
    gpus, folder = visible_gpus(), _common_folder()
    kept = sorted(gpus, key=lambda device: _busy(folder / device))[:count]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(kept)


@contextlib.contextmanager
def lease(
    devices: list[str],
    runs: int = 1,
    waiting: Callable[[], None] = lambda: None,
    folder: Path | None = None,
) -> Iterator[str | None]:
    """Hold one of `devices` with at most `runs` - 1 others, alone if that is 1; None of none. While
    there is no room, `waiting` is called again and again, and may raise.

    An empty device is taken before one that is shared.
    """
    if not devices:
        yield None
        return
    folder = folder or _common_folder()
    with ExitStack() as held, ExitStack() as queue:
        reserved: str | None = None
        while True:
            shuffled = random.sample(devices, len(devices))
            for device in sorted(shuffled, key=lambda name: _busy(folder / name)):
                if _enter(held, folder / device, runs, device == reserved):
                    queue.close()
                    yield device
                    return
            # who comes later waits behind: else runs that share it could keep one out for ever
            if not reserved and _lock(queue, _door(folder / shuffled[0]), fcntl.LOCK_EX):
                reserved = shuffled[0]
            waiting()
            time.sleep(random.uniform(0.05, 0.3))


def _enter(held: ExitStack, device: Path, runs: int, reserved: bool) -> bool:
    """Take one of the first `runs` places at `device`. The places beyond are barred, together with
    whoever bars them too: so there are never more runs than the fewest that one of them allows."""
    places = _places(device)
    with ExitStack() as passing, ExitStack() as locks:
        if (
            (reserved or _lock(passing, _door(device), fcntl.LOCK_SH))
            and all(_lock(locks, place, fcntl.LOCK_SH) for place in places[runs:])
            and any(_lock(locks, place, fcntl.LOCK_EX) for place in places[:runs])
        ):
            held.enter_context(locks.pop_all())
            return True
    return False


def _busy(device: Path) -> int:
    """Number of runs at `device`."""
    with ExitStack() as locks:
        return sum(not _lock(locks, place, fcntl.LOCK_SH) for place in _places(device))


def _places(device: Path) -> list[Path]:
    return [device.with_name(f"{device.name}.{number}") for number in range(MOST)]


def _door(device: Path) -> Path:
    return device.with_name(f"{device.name}.door")


def _lock(locks: ExitStack, path: Path, kind: int) -> bool:
    """Lock `path` until `locks` is closed, unless it is locked."""
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


def _common_folder() -> Path:
    """Of this machine's users together."""
    folder = Path(tempfile.gettempdir()) / "dmlbench-gpus"
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o1777)  # whatever the umask
    return folder
