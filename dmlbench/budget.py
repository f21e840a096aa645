"""What to leave out of a plan that costs more than there is."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import yaml

from dmlbench.cost import Job
from dmlbench.run import Run
from dmlbench.settings import Plan
from dmlbench.status import duration

UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0}
FEW = 3
"""Seeds below which an interval says little."""
STEPS = ((("seed",), FEW), (("dataset", "backbone"), 1), (("loss",), 2), (("seed",), 1))
"""What is left out in turn, and how many of it stay."""


class Drop(NamedTuple):
    """A seed, a loss, or a data set with a backbone, that is left out."""

    what: dict[str, str | int]
    """As {"dataset": "sop", "backbone": "big"}."""
    saves: float
    """Seconds of the devices."""

    def has(self, run: Run) -> bool:
        return all(getattr(run, axis) == name for axis, name in self.what.items())


@dataclass
class Proposal:
    left: list[Job]
    """What is to be done then."""
    drops: list[Drop] = field(default_factory=list)

    @property
    def busy(self) -> float:
        """Seconds of the devices that are needed then."""
        return sum(job.busy for job in self.left)

    @property
    def dropped_seeds(self) -> set[int]:
        return {int(drop.what["seed"]) for drop in self.drops if "seed" in drop.what}

    def settings(self, plan: Plan) -> list[str]:
        """Lines for the study file: `plan` without what is dropped, with the time that saves."""
        lines = ["plan:"]
        if gone := self.dropped_seeds:
            seeds = ", ".join(str(seed) for seed in plan.seeds if seed not in gone)
            saved = sum(drop.saves for drop in self.drops if "seed" in drop.what)
            lines.append(f"  seeds: [{seeds}]  # saves {duration(saved)}")
        if excluded := [drop for drop in self.drops if "seed" not in drop.what]:
            lines.append("  exclude:")
            lines += [f"    - {_entry(rule.names)}" for rule in plan.exclude]
            lines += [f"    - {_entry(d.what)}  # saves {duration(d.saves)}" for d in excluded]
        return lines


def parse(text: str) -> float:
    """Seconds of `90m`, `40h`, `1.5d`.

    Raises:
        ValueError: it is no such thing.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text, re.ASCII)
    if not match or not float(match[1]):
        needed = "a number above 0 and its unit, m, h or d, as in 90m, 40h, 2d"
        raise ValueError(f"'{text}' is no time, which is {needed}")
    return float(match[1]) * UNITS[match[2]]


def propose(runs: Collection[Run], jobs: Sequence[Job], budget: float) -> Proposal:
    """What to leave out of `runs` so that the `jobs` of the others take at most `budget` seconds of
    the devices, if that can be.

    In turn, until they fit: seeds beyond the third, the last one first; data sets with a backbone,
    all but one; losses, all but two; seeds beyond the first. Of the second and third, the cheapest
    that is enough, or if none is, the dearest, and again. What is done costs nothing, and stays.
    """
    found = Proposal(left=[*jobs])
    trainings = [run for run in runs if run.trains]
    for axes, keep in STEPS:
        while (over := found.busy - budget) > 0:
            saves = _saves(axes, trainings, found.left)
            # what is done stays, and so does the first seed, which has the controls
            first = next(iter(saves)) if axes == ("seed",) else None
            costly = {place: s for place, s in saves.items() if s and place != first}
            if len(saves) <= keep or not costly:
                break
            enough = [place for place, s in costly.items() if s >= over]
            if axes == ("seed",):
                place = next(reversed(costly))
            else:
                place = max(costly, key=costly.__getitem__)
                if enough:
                    place = min(enough, key=costly.__getitem__)
            drop = Drop(dict(zip(axes, place, strict=True)), costly[place])
            found.drops.append(drop)
            found.left = [job for job in found.left if not drop.has(job.run)]
            trainings = [run for run in trainings if not drop.has(run)]
    return found


def _saves(
    axes: Sequence[str], trainings: Sequence[Run], jobs: Sequence[Job]
) -> dict[tuple[str | int, ...], float]:
    """Seconds that it saves to leave out each value of `axes` that trainings have."""
    saves = {tuple(getattr(run, axis) for axis in axes): 0.0 for run in trainings}
    for job in jobs:
        place = tuple(getattr(job.run, axis) for axis in axes)
        if place in saves:  # a control is not among the losses
            saves[place] += job.busy
    return saves


def _entry(names: Mapping[str, str | int]) -> str:
    """As a study file has it."""
    return yaml.safe_dump(dict(names), default_flow_style=True, sort_keys=False, width=999).strip()
