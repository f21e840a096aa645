"""What the process of a training keeps: its memory, and the kernels that were compiled for it."""

from __future__ import annotations

import ctypes
import os

from dmlbench.files import data_folder

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Let malloc keep what is freed. A step frees and asks for the same large tensors again and
    again; given back to the system each time, they are zeroed each time: a sixth of a training's
    CPU time."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def keep_kernels() -> None:
    """Keep what torch.compile makes beside the stores, for other processes, unless the user says
    where. Before torch is imported: it would choose a folder of this machine alone."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(data_folder().resolve() / "compiled"))
