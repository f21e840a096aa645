"""The `cluster:` section of a study: what its jobs ask a scheduler for.

It is about machines, so no key depends on it, and a change computes nothing again.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dmlbench.study.model import Model
from dmlbench.study.numbers import AS_NUMBER

SiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.,+-]*$", max_length=200)]
"""A name that the administrators of a cluster gave. It stands in a command of a shell."""
GpuType = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$", max_length=100)]
Feature = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.,|&*()\[\]:=!-]+$", max_length=200)]
MINUTES_OF_A_YEAR = 525_600


class Cluster(Model):
    """What the jobs of the study ask the scheduler of a cluster for. These settings are in no key:
    a change computes nothing again."""

    device: Literal["gpu", "cpu"] = "gpu"
    """Train on a GPU or on CPUs alone. With cpu, no job asks for a GPU."""
    partition: SiteName | None = None
    """Submit trainings, and the scores that are made with them, to this partition (queue). null
    takes the default of the cluster."""
    cpu_partition: SiteName | None = None
    """Submit jobs that need no GPU to this partition. null takes `partition`."""
    account: SiteName | None = None
    """Charge the jobs to this account. null takes your default."""
    qos: SiteName | None = None
    """Submit with this quality of service."""
    constraint: Feature | None = None
    """Run jobs that need a GPU only on nodes with this feature, as `a100` or `a100|h100`."""
    gpu_request: Literal["gpus", "gres"] = "gpus"
    """The form in which a job asks for its GPU: gpus is `--gpus=1`, and gres is `--gres=gpu:1`,
    which some clusters demand."""
    gpu_type: GpuType | None = None
    """Ask for a GPU of this type, as `a100`. null takes any."""
    cores_per_gpu: Annotated[int, Field(ge=1, le=1024), AS_NUMBER] = 4
    """Ask for this many cores for each training on a GPU. One drives the GPU, and the others (8 at
    most) prepare images."""
    max_minutes: Annotated[int, Field(ge=1, le=MINUTES_OF_A_YEAR), AS_NUMBER] = 1440
    """Ask for this run time at most: the limit of the partition. A longer training saves its state
    before the limit and goes on in another job."""
    time_factor: Annotated[float, Field(ge=1, le=100), AS_NUMBER] = 2.0
    """Ask for this multiple of the estimated run time."""
    memory_mb: Annotated[int, Field(ge=100, le=100_000_000), AS_NUMBER] | None = None
    """Ask for this much memory, in MB, for each training. null takes an estimate from the model,
    its images and the batches. A training that was killed asks for more the next time."""
    score_with_training: bool = True
    """Make the scores in the job of their training, so a run is one submission. Scores that are
    made again alone are jobs of their own in any case."""
