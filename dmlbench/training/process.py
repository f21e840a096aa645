"""What the process of a training keeps: its memory, and the kernels that were compiled for it."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Let malloc keep what is freed. A step frees and asks for the same large tensors again and
    again; given back to the system each time, they are zeroed each time: a sixth of a training's
    CPU time."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def keep_kernels(folder: Path) -> None:
    """Keep what torch.compile makes in `folder`, for other processes, if it can be written and the
    user names no other. Before torch is imported: it would choose a folder of this machine alone.
    """
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if os.access(folder, os.W_OK):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder.resolve()))
