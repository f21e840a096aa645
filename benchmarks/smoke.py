"""Checks of the machine with a GPU, and of the batches that are copied to it ahead.

    python benchmarks/smoke.py machine batches_ahead --device cuda

`benchmarks/gpu.py` runs them. With `--device cpu`, what only a GPU can show is left out. The script
needs what `benchmarks/training.py` needs.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np
import torch
from bare import describe_machine, is_installed, run_checks, settings
from models import CASES, SAME_BITS, create_run
from torch import Tensor

from dmlbench.training import batches
from dmlbench.training import train as training
from dmlbench.training.prefetch import MapFunction, device_batches
from dmlbench.utils.arithmetic import float32_precision
from dmlbench.utils.device import choose_device, compute_capability, device_fault
from dmlbench.utils.mps import uses_mps
from dmlbench.utils.nvidia_smi import NvidiaSmiFailed, nvidia_smi

FIELDS = "name,driver_version,memory.total,power.limit,compute_mode,mig.mode.current"
"""What nvidia-smi is asked."""
TF32_VARIABLES = ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE")
OPENINGS, MAX_GROWTH = {"cuda": 40, "cpu": 3}, 64e6
"""Openings of the batches ahead, and bytes that may be reserved after the third one."""


def machine(device: torch.device, folder: Path) -> str:
    """Describe the machine and its packages, and compute on the device."""
    found = {name: os.environ.get(name, "") for name in TF32_VARIABLES}
    before, recipe = tf32_state(), settings("Recipe")
    if device.type == "cuda":
        assert choose_device(recipe.gpu_precision) == device, "torch sees no GPU"
        capability = compute_capability(device)
    else:
        fault = device_fault(device)
        assert not fault, fault
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, in miniature"
    print(f"- device: {name}")
    packages = ("torch", "torchvision", "timm", "numpy", "Pillow", "pytorch-metric-learning")
    print(f"- {describe_machine(device.type, *packages)}, {platform.platform()}")
    optional = ("faiss", "scipy", "pyarrow", "pydantic", "sklearn")
    missing = [name for name in optional if not is_installed(name)]
    print(f"- missing packages: {', '.join(missing) or 'none'}")
    training.set_up(recipe, device)
    print(f"- float32 as found: {before}; in a training: {tf32_state()}")
    variables = ", ".join(f"{variable}={value}" for variable, value in found.items())
    print(f"- {variables}", flush=True)
    assert float32_precision() == "ieee"
    if device.type == "cpu":
        return "a small product is right"
    print(
        f"- compute capability {capability}; torch has kernels for "
        f"{', '.join(torch.cuda.get_arch_list())}; CUDA {torch.version.cuda}, cuDNN "
        f"{torch.backends.cudnn.version()}; MPS: {'yes' if uses_mps() else 'no'}"
    )
    try:
        lines = nvidia_smi(f"--query-gpu={FIELDS}", "--format=csv")
    except NvidiaSmiFailed as error:
        if error.is_missing:
            return f"compute capability {capability}; there is no nvidia-smi"
        lines = [str(error)]
    for line in lines:
        print(f"- {line}")
    return f"compute capability {capability}"


def tf32_state() -> str:
    """How torch multiplies in float32."""
    return (
        f"products {torch.backends.cuda.matmul.fp32_precision}, convolutions "
        f"{torch.backends.cudnn.conv.fp32_precision}"
    )


def batches_ahead(device: torch.device, folder: Path) -> str:
    """Batches that are copied during a computation equal those that are prepared on demand.

    The device turns the last one into the same floats as a CPU. And new epochs reserve no memory.
    """
    case = CASES[device.type][0]
    run, store = create_run(case, SAME_BITS[device.type], folder)
    side, images = case.backbone.image_size, len(store.split("train").rows)
    keys = [np.random.default_rng(n).integers(0, images, 64) for n in range(40)]

    def prepare(rows: np.ndarray, map_function: MapFunction) -> dict[str, Tensor]:
        random = np.random.default_rng(rows)
        boxes, drawn = batches.draw(store.sizes[rows], run.recipe.augmentation, random)
        return {"squares": batches.crops(store, rows, boxes, side, map_function), **drawn}

    def checksums(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        squares = batch["squares"]
        weights = torch.arange(3 * side * side, device=squares.device).view(3, side, side)
        return {**batch, "squares": (squares * weights).sum((1, 2, 3))}

    size = 8192 if device.type == "cuda" else 8
    matrix, on_device = torch.rand(size, size, device=device), []
    for batch in device_batches(prepare, keys, device):
        matrix @ matrix  # the copies of later batches overtake what reads this one
        on_device.append(checksums(batch))
    for sums, rows in zip(on_device, keys, strict=True):
        expected = prepare(rows, map)
        for name, values in checksums(expected).items():
            assert torch.equal(sums[name].cpu(), values), name
    pixels = [batches.floats(**last).cpu() for last in (batch, expected)]
    torch.testing.assert_close(*pixels, atol=1e-3, rtol=0)

    reserved = []
    for _ in range(OPENINGS[device.type]):
        for batch in device_batches(prepare, keys[:4], device):
            batches.floats(**batch)
        reserved.append(torch.cuda.memory_reserved() if device.type == "cuda" else 0)
    growth = reserved[-1] - reserved[2]
    remark = f"{len(keys)} batches are equal; {len(reserved)} epochs reserve {growth / 1e6:.0f} MB"
    assert growth <= MAX_GROWTH, remark
    return remark


def main() -> None:
    run_checks([machine, batches_ahead], __doc__.split("\n\n")[0])


if __name__ == "__main__":
    main()
