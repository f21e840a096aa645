"""How many processor cores this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Number of cores that this process may use.

    On a cluster, fewer than the machine has. In a job of a workflow, as many as DMLBENCH_CORES
    says.
    """
    affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, int(os.environ.get("DMLBENCH_CORES", cores)))
