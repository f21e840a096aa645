"""What a training cost, and what all seeds of a cell cost together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmlbench.study.run import Run

COSTS: dict[str, Callable[[Sequence[float]], float]] = {
    "train_seconds": sum,
    "gpu_hours": sum,
    "core_hours": sum,
    "peak_memory_mb": max,
    "images_per_second": fmean,
}
"""The costs of a run, and how those of a cell are made of them."""


def costs_of_run(run: Run, provenance: Mapping[str, Any]) -> dict[str, float]:
    """The costs of `run` by their name in COSTS.

    A run that failed before its training has none. A training takes hours of a GPU, or hours of
    cores. Runs that share a GPU share its hours.

    Args:
        provenance: what run.json says about the training.
    """
    costs = {name: provenance[name] for name in COSTS if provenance.get(name) is not None}
    seconds = costs.get("train_seconds")
    if seconds is None:
        return costs
    if provenance["device"].startswith("cpu "):
        core_hours = seconds * run.recipe.cpu_threads / 3600
        return {**costs, "core_hours": core_hours}
    gpu_hours = seconds / provenance.get("runs_per_gpu", 1) / 3600
    return {**costs, "gpu_hours": gpu_hours}


def costs_of_cell(
    runs: Sequence[Run], provenances: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """The costs of all seeds of a cell together; failed seeds count too."""
    costs = list(map(costs_of_run, runs, provenances))
    by_name = {name: [cost[name] for cost in costs if name in cost] for name in COSTS}
    return {name: COSTS[name](values) for name, values in by_name.items() if values}
