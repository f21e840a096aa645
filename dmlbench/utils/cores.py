"""How many processor cores this process may use."""

from __future__ import annotations

import os

from dmlbench.utils.errors import WrongEnvironment


def usable_cores() -> int:
    """Number of cores that this process may use.

    On a cluster, fewer than the machine has. In a job of a workflow, as many as DMLBENCH_CORES
    says.

    Raises:
        WrongEnvironment: DMLBENCH_CORES is no whole number above 0.
    """
    affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    limit = os.environ.get("DMLBENCH_CORES") or str(cores)
    if not limit.isdecimal() or not int(limit):
        problem = "it is no whole number above 0. Unset it, and all usable cores are taken."
        raise WrongEnvironment(f"DMLBENCH_CORES={limit}: {problem}")
    return min(cores, int(limit))
