"""How many processor cores this process may use."""

from __future__ import annotations

import os

from dmlbench.utils.errors import WrongEnvironment
from dmlbench.utils.numerals import parse_count

MAX_CORES = 100_000


def usable_cores() -> int:
    """Number of cores that this process may use.

    On a cluster, fewer than the machine has. In a job of a workflow, as many as DMLBENCH_CORES
    says.

    Raises:
        WrongEnvironment: DMLBENCH_CORES is no whole number above 0.
    """
    affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    try:
        limit = parse_count(os.environ.get("DMLBENCH_CORES") or str(cores), MAX_CORES)
    except ValueError as error:
        fix = "Unset it, and all usable cores are taken."
        raise WrongEnvironment(f"DMLBENCH_CORES: {error}. {fix}") from None
    return min(cores, limit)
