"""Where a number comes from: code, versions, machine, time and memory."""

from __future__ import annotations

import contextlib
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlbench.utils.arithmetic import float32_precision
from dmlbench.utils.device import compute_capability, driver_version
from dmlbench.utils.discovery import versions

if TYPE_CHECKING:
    import torch
    from torch import nn

MAKES_NUMBERS = False
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


def device_facts(device: torch.device) -> dict[str, Any]:
    """The device of a training, and the versions that decide its numbers there.

    Ask before the first step: a GPU that has failed answers nothing.
    """
    if device.type == "cpu":
        return {"device": f"cpu ({processor()})", "driver": None}
    import torch

    return {
        "device": torch.cuda.get_device_name(device),
        "compute_capability": compute_capability(device),
        "driver": driver_version(),
        "cuda": torch.version.cuda,
    }


def measurements(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Arithmetic, peak memory (MiB) and speed of the training that this process did.

    `nondeterministic` names the operators that had no deterministic kernel on its GPU.
    """
    from dmlbench.training.determinism import refused

    seconds = sum(row["seconds"] for row in history)
    images = sum(row["images_per_second"] * row["seconds"] for row in history)
    return {
        "float32": float32_precision(),
        "nondeterministic": sorted(refused),
        "peak_memory_mb": _peak_memory(),
        "train_seconds": round(seconds, 3),
        "images_per_second": round(images / seconds, 1) if seconds else None,
    }


def count_parameters(module: nn.Module) -> int:
    """The number of values that `module` learns."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _peak_memory() -> float | None:
    """The peak of the memory that this process has allocated on its GPU, or of its resident memory
    if it has none, in MiB. None if the GPU does not answer, as after a failure."""
    torch = sys.modules.get("torch")  # without it, or before it uses a GPU, there is none
    if torch is None or not torch.cuda.is_initialized():
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1)
    with contextlib.suppress(RuntimeError):
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return None


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
