"""What a training runs on: its memory, and which GPU - a lease by kernel file lock, one a physical
device.

Snakemake's `resources: gpu` limits how many jobs run; the lease decides on which device. A lock
dies with its process, so nothing leaks however a job ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from dmlbench.training.state import Stopped

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Let malloc keep what is freed. A step frees and asks for the same large tensors again and
    again; given back to the system each time, they are zeroed each time: a sixth of a training's
    CPU time."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


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


@contextlib.contextmanager
def lease(
    devices: list[str], stop: Callable[[], str | None], folder: Path | None = None
) -> Iterator[str | None]:
    """Hold one of `devices` alone, and wait for one while all are held; None of none.

    Raises:
        Stopped: `stop` gave a reason while waiting.
    """
    if not devices:
        yield None
        return
    folder = folder or Path(tempfile.gettempdir()) / f"dmlbench-gpus-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        for device in random.sample(devices, len(devices)):
            with (folder / f"{device}.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield device
                return
        if reason := stop():
            raise Stopped(reason, f"{reason} while waiting for a GPU")
        time.sleep(random.uniform(0.05, 0.3))
