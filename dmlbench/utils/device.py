"""The device of a job: the GPU that it was given, or the CPU if the user says so."""

from __future__ import annotations

import os
import platform
from collections.abc import MutableMapping

from dmlbench.utils.errors import GpuNotSeen, WrongEnvironment

DEVICE = "DMLBENCH_DEVICE"
"""The variable that chooses the CPU."""
HIDDEN = ("", "-1", "NoDevFiles")
"""What CUDA_VISIBLE_DEVICES holds if there is no GPU; the last one is SLURM's word."""
GPU_VARIABLES = ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "CUDA_VISIBLE_DEVICES")
"""Variables that hold the GPUs of a job."""


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
        environ["CUDA_VISIBLE_DEVICES"] = ""


def check_gpu_seen(is_seen: bool, environ: MutableMapping[str, str] = os.environ) -> None:
    """Refuse to train on the CPU if this job was given a GPU.

    A training on the CPU would take a hundred times as long, and hold the GPU all the time.

    Args:
        is_seen: whether torch sees a GPU.

    Raises:
        GpuNotSeen: torch sees none, although the scheduler, or the lease of this machine, gave one.

    >>> check_gpu_seen(True, {"CUDA_VISIBLE_DEVICES": "0"})
    >>> check_gpu_seen(False, {"CUDA_VISIBLE_DEVICES": ""})
    """
    if is_seen or environ.get(DEVICE) == "cpu":
        return
    given = [name for name in GPU_VARIABLES if environ.get(name, "") not in HIDDEN]
    if given:
        variables = ", ".join(f"{name}={environ[name]}" for name in given)
        raise GpuNotSeen(
            f"torch does not see the GPU of this job on {platform.node()} ({variables}). "
            f"`nvidia-smi` there shows the driver; torch must be a build for CUDA that fits it. To "
            f"train on the CPU, set {DEVICE}=cpu."
        )
