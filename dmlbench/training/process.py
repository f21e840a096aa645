"""What the process of a training keeps: its memory, and its compiled kernels."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

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
