"""What to leave out of a plan that costs more than the user has."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from dmlbench.planning.cost import Job
from dmlbench.study.plan import Plan
from dmlbench.study.run import Run
from dmlbench.utils.text import format_duration, short_repr

UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_SECONDS = 1_000_000 * UNITS["d"]
MIN_SEEDS = 3
"""With fewer seeds, an interval says little."""
MIN_TRIALS = 8
"""With fewer trials, a loss with several options is hardly tuned."""


class Step(NamedTuple):
    """Leave out values of `axes`, and keep this many of them."""

    axes: tuple[str, ...]
    keep: int


STEPS = (
    Step(("seed",), keep=MIN_SEEDS),
    Step(("trial",), keep=MIN_TRIALS),
    Step(("dataset", "backbone"), keep=1),
    Step(("loss",), keep=2),
    Step(("trial",), keep=1),
    Step(("seed",), keep=1),
)
"""They are taken in this order, until the plan fits the budget."""
ORDERED = frozenset({("seed",), ("trial",)})
"""Axes of which the last value is left out first."""

Value = tuple[str | int | None, ...]
"""A seed, the number of a trial, a loss, or a data set with a backbone: a value of each axis of a
step."""


class Drop(NamedTuple):
    """A seed, a trial of every loss, a loss, or a data set with a backbone that is left out."""

    names: dict[str, Any]
    """Axis -> name, as {"dataset": "sop", "backbone": "big"}."""
    saved: float
    """GPU seconds that this saves; core seconds if there is no GPU."""

    def matches(self, run: Run, trial: int | None = None) -> bool:
        """Whether it leaves out `run`, or the trial with this number that trains `run`."""
        names = _names(run, trial)
        return all(names[axis] == name for axis, name in self.names.items())


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

    @property
    def trials(self) -> int | None:
        """The number of trials that each loss has left; None if all are."""
        dropped = (int(drop.names["trial"]) for drop in self.drops if "trial" in drop.names)
        return min(dropped, default=None)

    def settings(self, plan: Plan) -> list[str]:
        """Lines for the study file: what changes in `plan` and in the number of trials, with the
        time that it saves."""
        lines = []
        if self.dropped_seeds:
            seeds = ", ".join(str(seed) for seed in plan.seeds if seed not in self.dropped_seeds)
            lines.append(f"  seeds: [{seeds}]  # saves {self._saved('seed')}")
        if excluded := [drop for drop in self.drops if "loss" in drop.names or len(drop.names) > 1]:
            lines.append("  exclude:")
            lines += [f"    - {_yaml(rule.names)}" for rule in plan.exclude]
            lines += [
                f"    - {_yaml(drop.names)}  # saves {format_duration(drop.saved)}"
                for drop in excluded
            ]
        if lines:
            lines.insert(0, "plan:")
        if self.trials is not None:
            lines += ["tuning:", f"  trials: {self.trials}  # saves {self._saved('trial')}"]
        return lines

    def _saved(self, axis: str) -> str:
        """The time that leaving out values of `axis` saves."""
        return format_duration(sum(drop.saved for drop in self.drops if axis in drop.names))


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


def propose(runs: Collection[Run], jobs: Sequence[Job], budget: float, trials: int = 0) -> Proposal:
    """Leave out runs and trials until the jobs of the others take at most `budget` seconds of the
    devices.

    `STEPS` are taken in turn until they fit:

    1. seeds beyond the third, the last one first;
    2. trials beyond the eighth of every loss, the last one first;
    3. data sets with a backbone, all but one;
    4. losses, all but two;
    5. trials beyond the first;
    6. seeds beyond the first.

    The third and fourth step leave out the cheapest value that saves enough. If no value saves
    enough, they leave out the most expensive one, and look again. Finished runs cost nothing, and
    stay. If the budget is too small for what these steps keep, the proposal does not fit.

    Args:
        runs: all runs of the plan.
        jobs: the jobs that are to be done for them.
        trials: the number of trials of each loss; 0 if none is tuned.
    """
    proposal = Proposal(jobs=[*jobs])
    trainings = [run for run in runs if run.trains]
    numbers = [*range(trials)]
    for step in STEPS:
        while (excess := proposal.device_seconds - budget) > 0:
            costs = _costs(step.axes, trainings, numbers, proposal.jobs)
            # finished runs stay, and so do the first seed, which has the controls, and the first
            # trial, which has the settings of the study
            first = next(iter(costs), None) if step.axes in ORDERED else None
            costly = {value: cost for value, cost in costs.items() if cost and value != first}
            if len(costs) <= step.keep or not costly:
                break
            value = _choose(step.axes, costly, excess)
            drop = Drop(dict(zip(step.axes, value, strict=True)), costly[value])
            proposal.drops.append(drop)
            proposal.jobs = [job for job in proposal.jobs if not drop.matches(job.run, job.trial)]
            trainings = [run for run in trainings if not drop.matches(run)]
            if step.axes == ("trial",):
                numbers = numbers[: numbers.index(value[0])]
    return proposal


def _costs(
    axes: Sequence[str], trainings: Sequence[Run], trials: Sequence[int], jobs: Sequence[Job]
) -> dict[Value, float]:
    """Each value of `axes` that trainings or trials have -> seconds of its jobs."""
    costs: dict[Value, float] = {_value(axes, run, None): 0.0 for run in trainings}
    if axes == ("trial",):
        costs = {(number,): 0.0 for number in trials}
    for job in jobs:
        value = _value(axes, job.run, job.trial)
        if value in costs:  # a control is not among the losses
            costs[value] += job.device_seconds
    return costs


def _names(run: Run, trial: int | None) -> dict[str, Any]:
    """Axis -> name of a run, or of a trial that trains it. All seeds share the trials."""
    names = {axis: getattr(run, axis) for axis in ("dataset", "backbone", "loss")}
    return {**names, "seed": run.seed if trial is None else None, "trial": trial}


def _value(axes: Sequence[str], run: Run, trial: int | None) -> Value:
    names = _names(run, trial)
    return tuple(names[axis] for axis in axes)


def _choose(axes: Sequence[str], costs: Mapping[Value, float], excess: float) -> Value:
    """The value to leave out, so that `excess` seconds are saved if one is enough for that."""
    if axes in ORDERED:
        return list(costs)[-1]
    enough = [value for value, cost in costs.items() if cost >= excess]
    if enough:
        return min(enough, key=costs.__getitem__)
    return max(costs, key=costs.__getitem__)


def _yaml(names: Mapping[str, Any]) -> str:
    """`names` on one line, as a study file has them."""
    return yaml.safe_dump(dict(names), default_flow_style=True, sort_keys=False, width=999).strip()
