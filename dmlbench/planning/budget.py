"""What to leave out of a plan that costs more than the user has."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import yaml

from dmlbench.planning.cost import Job
from dmlbench.study.plan import Plan
from dmlbench.study.run import Run
from dmlbench.utils.text import format_duration, short_repr

UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_SECONDS = 1_000_000 * UNITS["d"]
MIN_SEEDS = 3
"""With fewer seeds, an interval says little."""


class Step(NamedTuple):
    """Leave out values of `axes`, and keep this many of them."""

    axes: tuple[str, ...]
    keep: int


STEPS = (
    Step(("seed",), keep=MIN_SEEDS),
    Step(("dataset", "backbone"), keep=1),
    Step(("loss",), keep=2),
    Step(("seed",), keep=1),
)
"""They are taken in this order, until the plan fits the budget."""

Value = tuple[str | int, ...]
"""A seed, a loss, or a data set with a backbone: a value of each axis of a step."""


class Drop(NamedTuple):
    """A seed, a loss, or a data set with a backbone that is left out."""

    names: dict[str, str | int]
    """Axis -> name, as {"dataset": "sop", "backbone": "big"}."""
    saved: float
    """GPU seconds that this saves; core seconds if there is no GPU."""

    def matches(self, run: Run) -> bool:
        """Whether it leaves out `run`."""
        return all(getattr(run, axis) == name for axis, name in self.names.items())


@dataclass
class Proposal:
    """A smaller plan."""

    jobs: list[Job]
    """The jobs that are left."""
    drops: list[Drop] = field(default_factory=list)

    @property
    def device_seconds(self) -> float:
        """The `device_seconds` of the jobs that are left."""
        return sum(job.device_seconds for job in self.jobs)

    @property
    def dropped_seeds(self) -> set[int]:
        return {int(drop.names["seed"]) for drop in self.drops if "seed" in drop.names}

    def settings(self, plan: Plan) -> list[str]:
        """Lines for the study file: what changes in `plan`, with the time that it saves."""
        lines = ["plan:"]
        if self.dropped_seeds:
            seeds = ", ".join(str(seed) for seed in plan.seeds if seed not in self.dropped_seeds)
            saved = sum(drop.saved for drop in self.drops if "seed" in drop.names)
            lines.append(f"  seeds: [{seeds}]  # saves {format_duration(saved)}")
        if excluded := [drop for drop in self.drops if "seed" not in drop.names]:
            lines.append("  exclude:")
            lines += [f"    - {_yaml(rule.names)}" for rule in plan.exclude]
            lines += [
                f"    - {_yaml(drop.names)}  # saves {format_duration(drop.saved)}"
                for drop in excluded
            ]
        return lines


def parse_time(text: str) -> float:
    """Seconds of `90m`, `40h`, `1.5d`.

    Raises:
        ValueError: it is not a time.

    >>> parse_time("90m")
    5400.0
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([mhd])", text, re.ASCII)
    seconds = float(match[1]) * UNITS[match[2]] if match else 0
    if not 0 < seconds <= MAX_SECONDS:
        needed = "a number above 0 with its unit, m, h or d: 90m, 40h, 2d. The most is 1000000d"
        raise ValueError(f"{short_repr(text)} is not a time. Give {needed}")
    return seconds


def propose(runs: Collection[Run], jobs: Sequence[Job], budget: float) -> Proposal:
    """Leave out runs until the jobs of the others take at most `budget` seconds of the devices.

    `STEPS` are taken in turn until they fit:

    1. seeds beyond the third, the last one first;
    2. data sets with a backbone, all but one;
    3. losses, all but two;
    4. seeds beyond the first.

    The second and third step leave out the cheapest value that saves enough. If no value saves
    enough, they leave out the most expensive one, and look again. Finished runs cost nothing, and
    stay. If the budget is too small
    for what these steps keep, the proposal does not fit.

    Args:
        runs: all runs of the plan.
        jobs: the jobs that are to be done for them.
    """
    proposal = Proposal(jobs=[*jobs])
    trainings = [run for run in runs if run.trains]
    for step in STEPS:
        while (excess := proposal.device_seconds - budget) > 0:
            costs = _costs(step.axes, trainings, proposal.jobs)
            # finished runs stay, and so does the first seed, which has the controls
            first = next(iter(costs)) if step.axes == ("seed",) else None
            costly = {value: cost for value, cost in costs.items() if cost and value != first}
            if len(costs) <= step.keep or not costly:
                break
            value = _choose(step.axes, costly, excess)
            drop = Drop(dict(zip(step.axes, value, strict=True)), costly[value])
            proposal.drops.append(drop)
            proposal.jobs = [job for job in proposal.jobs if not drop.matches(job.run)]
            trainings = [run for run in trainings if not drop.matches(run)]
    return proposal


def _costs(
    axes: Sequence[str], trainings: Sequence[Run], jobs: Sequence[Job]
) -> dict[Value, float]:
    """Each value of `axes` that trainings have -> seconds of its jobs."""
    costs: dict[Value, float] = {_value(axes, run): 0.0 for run in trainings}
    for job in jobs:
        value = _value(axes, job.run)
        if value in costs:  # a control is not among the losses
            costs[value] += job.device_seconds
    return costs


def _value(axes: Sequence[str], run: Run) -> Value:
    return tuple(getattr(run, axis) for axis in axes)


def _choose(axes: Sequence[str], costs: Mapping[Value, float], excess: float) -> Value:
    """The value to leave out, so that `excess` seconds are saved if one is enough for that."""
    if axes == ("seed",):
        return list(costs)[-1]
    enough = [value for value, cost in costs.items() if cost >= excess]
    if enough:
        return min(enough, key=costs.__getitem__)
    return max(costs, key=costs.__getitem__)


def _yaml(names: Mapping[str, str | int]) -> str:
    """`names` on one line, as a study file has them."""
    return yaml.safe_dump(dict(names), default_flow_style=True, sort_keys=False, width=999).strip()
