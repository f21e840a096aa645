"""The device of a job: the GPU that it was given, or the CPU if the user says so."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import warnings
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from dmlbench.utils.arithmetic import use_ieee_float32
from dmlbench.utils.errors import UnusableGpu, UserError, WrongEnvironment
from dmlbench.utils.nvidia_smi import NvidiaSmiFailed, nvidia_smi
from dmlbench.utils.text import first_line

if TYPE_CHECKING:
    import torch

DEVICE = "DMLBENCH_DEVICE"
"""The variable that chooses the CPU."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
HIDDEN = ("", "-1", "NoDevFiles")
"""What CUDA_VISIBLE_DEVICES holds if there is no GPU; the last one is SLURM's word."""
GPU_VARIABLES = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", VISIBLE)
"""Variables that hold the GPUs of a job."""
LEAST_DRIVERS = {"11": "450", "12": "525", "13": "580"}
"""Version of CUDA -> the oldest driver for it, by NVIDIA's page "CUDA Compatibility" (Minor Version
Compatibility, Table 1)."""
LEAST_FOR_BFLOAT16 = (8, 0)
"""Compute capability of Ampere. torch emulates bfloat16 on older GPUs, some ten times slower."""
DRIVER_FILE = Path("/proc/driver/nvidia/version")


def use_chosen_device(environ: MutableMapping[str, str] = os.environ) -> None:
    """Hide all GPUs from this process and its children if DMLBENCH_DEVICE is `cpu`.

    Call it before torch is imported.

    Raises:
        WrongEnvironment: DMLBENCH_DEVICE has another value.
    """
    chosen = environ.get(DEVICE) or "gpu"
    if chosen not in ("cpu", "gpu"):
        fix = "it is cpu, or gpu for the GPUs that there are, which is the default."
        raise WrongEnvironment(f"{DEVICE}={chosen}: {fix}")
    if chosen == "cpu":
        environ[VISIBLE] = ""


def choose_device(
    gpu_precision: str = "float32", environ: MutableMapping[str, str] = os.environ
) -> torch.device:
    """The device that this process computes on: its GPU, or the CPU if it has none.

    Its float32 is IEEE float32 from now on.

    A GPU that is there must compute. On the CPU instead, a training would take a hundred times as
    long, hold the GPU all the time, and give numbers of another precision under the same key.

    Args:
        gpu_precision: in which a model computes on a GPU, as the recipe has it.

    Raises:
        UnusableGpu: torch cannot compute on the GPU that the scheduler, or the lease of this
            machine, gave, or that torch reports.
        UserError: bfloat16 is asked for, and the GPU is older than NVIDIA's Ampere.
        WrongEnvironment: torch is a build for AMD's GPUs.

    >>> choose_device("bfloat16", {"DMLBENCH_DEVICE": "cpu"})
    device(type='cpu')
    """
    import torch

    use_ieee_float32(environ)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    if environ.get(DEVICE) == "cpu":
        return cpu
    if torch.version.hip:
        raise WrongEnvironment(
            f"torch {torch.__version__} is a build for AMD's GPUs (ROCm), which dmlbench does not "
            f"support. Install a build for CUDA; or set {DEVICE}=cpu to compute on the CPU."
        )
    given = [name for name in GPU_VARIABLES if environ.get(name, "") not in HIDDEN]
    if not given and VISIBLE in environ:
        return cpu
    fault = ""
    with warnings.catch_warnings(record=True) as reports:
        warnings.simplefilter("always")
        is_seen = torch.cuda.is_available()
        fault = device_fault(gpu) if is_seen else ""
    if is_seen and not fault:
        for report in reports:
            warnings.warn_explicit(report.message, report.category, report.filename, report.lineno)
        _check_precision(gpu_precision, gpu)
        return gpu
    # torch is silent where there is no driver or no GPU, and warns where it cannot use them
    if not (is_seen or given or any("CUDA init" in str(report.message) for report in reports)):
        return cpu
    variables = {name: environ[name] for name in given}
    raise UnusableGpu(_describe_unusable_gpu(fault or _reason_of_no_gpu(), variables))


def device_fault(device: torch.device | str) -> str:
    """What torch says when it adds and multiplies small matrices on `device`; empty if it can.

    >>> device_fault("cpu")
    ''
    >>> device_fault("cuda:99") != ""
    True
    """
    import torch

    try:
        ones = torch.ones(16, 16, device=torch.device(device))
        total = float(((ones + ones) @ ones).sum())  # waits for the device
    except Exception as error:  # torch wraps some, and raises AssertionError if built without CUDA
        return _reason(error)
    return "" if total == 2 * 16**3 else f"1 + 1, summed up 4,096 times, is {total:g}"


def _check_precision(gpu_precision: str, gpu: torch.device) -> None:
    """Refuse bfloat16 on a GPU that does not compute in it."""
    import torch

    capability = torch.cuda.get_device_capability(gpu)
    if gpu_precision == "bfloat16" and capability < LEAST_FOR_BFLOAT16:
        raise UserError(
            f"recipe.gpu_precision: bfloat16 needs a GPU of compute capability "
            f"{_dotted(LEAST_FOR_BFLOAT16)} or more, and {torch.cuda.get_device_name(gpu)} has "
            f"{_dotted(capability)}: torch would emulate it, some ten times slower. Set "
            f"`gpu_precision: float32` under `recipe:` of the study; or use another GPU, or the "
            f"CPU ({DEVICE}=cpu)."
        )


def compute_capability(device: torch.device) -> str:
    """The compute capability of a GPU, as "9.0"."""
    import torch

    return _dotted(torch.cuda.get_device_capability(device))


def driver_version(file: Path = DRIVER_FILE) -> str | None:
    """The version of the NVIDIA driver, as "580.65.06"; None if nothing tells it."""
    with contextlib.suppress(OSError):  # the kernel's own file: not in every container
        if version := re.search(r"\b\d{3,}\.\d[\d.]*", file.read_text()):
            return version.group()
    return _ask_nvidia_smi("driver_version")


def _ask_nvidia_smi(field: str, gpu: str = "") -> str | None:
    """The answer of nvidia-smi about a GPU, by default the first one; None if it has none."""
    chosen = [f"--id={gpu}"] if gpu else []
    with contextlib.suppress(NvidiaSmiFailed):
        for line in nvidia_smi(f"--query-gpu={field}", "--format=csv,noheader", *chosen):
            return line.strip() or None
    return None


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _reason(error: Exception) -> str:
    """What torch says: below its first line is advice for its developers."""
    return first_line(error).rstrip(".")


def _reason_of_no_gpu() -> str:
    """Why torch sees no GPU, in its words."""
    import torch

    try:
        torch.cuda.init()
    except Exception as error:
        return _reason(error)
    return "it sees no GPU"


def _describe_unusable_gpu(fault: str, variables: Mapping[str, str]) -> str:
    """The message about a GPU that torch cannot compute on, with all that decides whether it can.

    It is one line: the last line of a process that failed is its message.

    Args:
        variables: those that gave the GPU to this job.
    """
    import torch

    gpu = torch.device("cuda")
    first = variables.get(VISIBLE, "").partition(",")[0]
    given = ", ".join(f"{name}={value}" for name, value in variables.items())
    name = _try(torch.cuda.get_device_name, gpu) or _ask_nvidia_smi("name", first)
    capability = _try(compute_capability, gpu) or _ask_nvidia_smi("compute_cap", first)
    cuda, kernels = torch.version.cuda, ", ".join(torch.cuda.get_arch_list())
    build = f"for CUDA {cuda}, with kernels for {kernels}" if cuda else "without CUDA"
    least = LEAST_DRIVERS.get((cuda or "").partition(".")[0])
    needed = f" (CUDA {cuda} needs {least} or newer)" if least else ""
    return (
        f"torch cannot compute on the GPU of this job on {platform.node()}"
        f"{given and f' ({given})'}: {fault}. GPU: {name or 'unknown'}, compute capability "
        f"{capability or 'unknown'}. Driver: {driver_version() or 'unknown'}{needed}. Torch: "
        f"{torch.__version__}, {build}. Driver and torch must fit the GPU: see docs/hardware.md, "
        f"and `nvidia-smi` there. To compute on the CPU, set {DEVICE}=cpu."
    )


def _try(ask: Callable[[torch.device], str], gpu: torch.device) -> str | None:
    """The answer of a GPU that may not answer."""
    with contextlib.suppress(Exception):
        return ask(gpu)
    return None
