"""The cost of a plan in words, and what to leave out of one that costs too much."""

from __future__ import annotations

from pathlib import Path

from dmlbench.budget import FEW, Proposal, propose
from dmlbench.cost import Cost, cost
from dmlbench.datasets import usable_cores
from dmlbench.due import Due
from dmlbench.files import MissingResult
from dmlbench.speeds import read
from dmlbench.status import duration
from dmlbench.study import Study


def price(
    study: Study, found: Due, stores: Path, gpus: int | None, budget: float | None
) -> list[str]:
    """What the jobs that are due cost on `gpus` GPUs, or on what is here, in lines; with `budget`,
    what to leave out so that they take at most so many seconds of GPUs, or of cores.

    Raises:
        MissingResult: there is no GPU here, or too little is known for a budget.
    """
    speeds = read(study)
    if gpus and not speeds.device.gpus:
        raise MissingResult(f"--gpus {gpus}: there is no GPU here, and its speed is not known.")
    unit, devices = ("GPU", gpus or speeds.device.gpus)
    if not speeds.device.gpus:
        unit, devices = "CPU", usable_cores()
    total = cost(study, found, speeds, stores)
    sharing = study.settings.runs_per_gpu if unit == "GPU" else 1
    lines = _costs(total, unit, devices, speeds.device.name, sharing)
    if budget is None:
        return lines
    if total.unmeasured or total.uncounted:
        raise MissingResult("--budget needs to know what all runs cost.\n" + "\n".join(lines))
    proposal = propose(study.runs.values(), total.jobs, budget)
    return lines + _proposed(study, total, proposal, budget, f"{unit}-hours")


def _costs(total: Cost, unit: str, devices: int, device: str, sharing: int) -> list[str]:
    lines = []
    if total.jobs:
        cores = f"{devices} {'core' if unit == 'CPU' else 'GPU'}{'s' * (devices != 1)}"
        lines.append(
            f"cost: {_runs(len(total.jobs))}, {_hours(total.busy)} {unit}-hours on {device}; with "
            f"{cores} about {duration(total.finish(devices))}, once images and weights are there"
        )
        if sharing > 1:
            saved = f"what runs_per_gpu: {sharing} saves is not known"
            lines.append(f"cost: as if each run had its GPU alone; {saved}")
    sizes = {
        "packed images": total.stores,
        "embeddings": total.embeddings,
        "models": total.models,
        "checkpoints while it runs": total.checkpoint * devices * sharing,
    }
    if any(sizes.values()):
        parts = [f"{_bytes(size)} of {name}" for name, size in sizes.items() if size]
        lines.append(f"disk: {', '.join(parts)}")
    if total.unmeasured:
        lines.append(
            f"cost: of {_runs(len(total.unmeasured))} not known. `dmlbench plan STUDY --probe` "
            f"measures how fast this machine trains and scores, once."
        )
    lines += [
        f"cost: of the runs on {name} not known. `snakemake data` packs and counts its images."
        for name in total.uncounted
    ]
    return lines


def _proposed(study: Study, total: Cost, proposal: Proposal, budget: float, unit: str) -> list[str]:
    limit = f"budget: {_hours(budget)} {unit}"
    if total.busy <= budget:
        return [f"{limit}, which is enough"]
    left = f"{len(proposal.left)} of {_runs(len(total.jobs))}, {_hours(proposal.busy)} {unit}"
    fits = proposal.busy <= budget
    lines = [
        f"{limit}; {'what fits' if fits else 'nothing fits, and the least'} is {left}:",
        *proposal.settings(study.settings.plan),
    ]
    kept = len(study.settings.plan.seeds) - len(proposal.dropped_seeds)
    if proposal.dropped_seeds and kept < FEW:
        lines.append(f"Intervals over fewer than {FEW} seeds say little.")
    return lines


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.2g}"


def _bytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
