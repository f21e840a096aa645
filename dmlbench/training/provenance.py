"""Where a number comes from: code, versions, machine, time and memory."""

from __future__ import annotations

import contextlib
import platform
import resource
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dmlbench.utils.discovery import versions

PACKAGES = (
    "dmlbench",
    "torch",
    "torchvision",
    "timm",
    "pytorch-metric-learning",
    "numpy",
    "faiss-gpu",
    "faiss-cpu",
)
"""The packages whose versions a result records."""


def provenance() -> dict[str, Any]:
    """Commit, versions, host and time at the start of a training."""
    return {
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version(), **versions(*PACKAGES)},
        "host": platform.node(),
        "started": utc_now(),
    }


def measurements(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Device, peak memory (MiB) and speed of the training that this process did."""
    import torch

    seconds = sum(row["seconds"] for row in history)
    images = sum(row["images_per_second"] * row["seconds"] for row in history)
    on_gpu = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else _peak_memory()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else f"cpu ({processor()})",
        "driver": _driver_version() if on_gpu else None,
        "peak_memory_mb": round(peak, 1),
        "train_seconds": round(seconds, 3),
        "images_per_second": round(images / seconds, 1) if seconds else None,
    }


def _driver_version() -> str | None:
    """The version of the NVIDIA driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return next(iter(answer.stdout.split()), None)


def _peak_memory() -> float:
    """The peak of the resident memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def processor() -> str:
    """The name of the CPU."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    """The commit of this package's source, marked if the tree has changes; None outside git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    folder = Path(__file__).parent
    try:
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return answer.stdout.strip() or None


def utc_now() -> str:
    """The time now in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
