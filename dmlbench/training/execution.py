"""How a training computes on its device: threads, precision, and kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dmlbench.training.determinism import use_deterministic_kernels
from dmlbench.utils.arithmetic import use_ieee_float32
from dmlbench.utils.late_imports import import_late, leave_out_compiler

if TYPE_CHECKING:
    from dmlbench.study.settings import Recipe


def set_up(recipe: Recipe, device: torch.device) -> None:
    """Make the arithmetic repeatable: fix the threads, compute in IEEE float32, and use
    deterministic kernels on a GPU."""
    if not compiles(recipe, device):
        leave_out_compiler()
    import_late("scipy.stats")
    torch.set_num_threads(recipe.cpu_threads)
    use_ieee_float32()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        use_deterministic_kernels()


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """The precision of the trunk: bfloat16 on a GPU if the recipe asks for it, else float32."""
    enabled = device.type == "cuda" and recipe.gpu_precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def compiles(recipe: Recipe, device: torch.device) -> bool:
    """Whether the steps use torch.compile: on a GPU if the recipe asks for it."""
    return device.type == "cuda" and recipe.gpu_compile
