"""What the process of a training keeps: its memory, its compiled kernels, the log of the run."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import platform
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from dmlbench.training.provenance import utc_now
from dmlbench.utils.cluster_job import current_job
from dmlbench.utils.disk import BROKEN, FULL
from dmlbench.utils.log_lines import ATTEMPT

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Let malloc keep the memory that is freed.

    Each step frees large tensors and allocates the same ones again. If they are given back to the
    system, it zeroes them each time: that is a sixth of the CPU time of a training.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def keep_kernels(folder: Path) -> None:
    """Let torch.compile keep its kernels in `folder`, for other processes.

    Nothing changes if the folder cannot be written, or if the user has set another one. Call this
    before torch is imported: torch would choose a folder that belongs to this machine only.
    """
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.W_OK):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder.resolve()))


def keep_frames(error: Exception) -> None:
    """Keep what the frames of `error` hold until this process ends.

    After an error of the GPU, freeing its memory may abort the process: torch raises where C++
    allows no error.
    """
    _kept.append(error)


_kept: list[Exception] = []


def begin_log(log: Path, key: str) -> None:
    """Say in the log of a run, if this process writes to it, that an attempt begins.

    The lines of earlier attempts stay, except of those under another key.
    """
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(1), log.stat()):
            with log.open(encoding="utf-8", errors="replace") as lines:
                first = next((line for line in lines if line.startswith(ATTEMPT)), "")
            if first and f"key {key}" not in first:
                os.ftruncate(1, 0)
    job = f", job {current_job()}" if current_job() else ""
    place = f"on {platform.node()}{job}, process {os.getpid()}, key {key}"
    print(f"{ATTEMPT} of {utc_now()} {place}", flush=True)


def survive_full_log() -> None:
    """Let the log lose lines if its disk is full: printing must not end a training."""
    if stat.S_ISREG(os.fstat(1).st_mode):
        sys.stdout = sys.stderr = _LossyText(sys.stdout.buffer, "utf-8", errors="backslashreplace")


class _LossyText(io.TextIOWrapper):
    """Text that is written at once, or lost."""

    def write(self, text: str, /) -> int:
        with _losing_text():
            super().write(text)
            super().flush()
        return len(text)

    def flush(self) -> None:
        with _losing_text():
            super().flush()


@contextlib.contextmanager
def _losing_text() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL | BROKEN:
            raise
