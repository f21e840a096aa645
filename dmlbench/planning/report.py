"""`dmlbench plan`: the runs of a study, what is to be done for them, and what that costs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dmlbench.datasets.store.duplicates_file import search_target
from dmlbench.planning.budget import MIN_SEEDS, Proposal, propose
from dmlbench.planning.cost import Cost, Job, estimate_cost
from dmlbench.planning.describe_jobs import (
    describe_cells,
    describe_runs,
    describe_trials,
    reason_lines,
)
from dmlbench.planning.measured_speed import read_throughput
from dmlbench.planning.pending import Pending, find_pending
from dmlbench.study.study import Study
from dmlbench.utils.cores import usable_cores
from dmlbench.utils.errors import MissingResult
from dmlbench.utils.text import count_of, format_bytes, format_duration

MAX_RUNS = 40
"""Runs that a terminal shows: the summary above them stays in sight."""


class Devices(NamedTuple):
    """What the runs are to be trained on."""

    unit: str
    """`GPU` or `CPU`."""
    number: int
    """How many GPUs or cores."""
    name: str
    runs_per_device: int


def show_plan(
    study: Study, stores: Path, gpus: int | None = None, budget: float | None = None
) -> None:
    """Print what is to be done and what that costs, and below each run with its key.

    The runs alone are on stdout, for other programs. A terminal gets the first of them.

    Args:
        stores: the folder of the packed images.
        gpus: number of GPUs; None takes those of this machine, or its cores if it has no GPU.
        budget: seconds of the devices; what to leave out is proposed, so that the rest fits.

    Raises:
        MissingResult: `gpus` is given and this machine has none, or too little is known for a
            `budget`.
    """
    pending = find_pending(study, stores)
    lines = _cost_lines(study, pending, stores, gpus, budget)
    print(_summary(study, pending), *lines, sep="\n", file=sys.stderr, flush=True)
    runs = [f"{path}  {run.train_key}" for path, run in study.runs.items()]
    shown = MAX_RUNS if sys.stdout.isatty() else len(runs)
    print(*runs[:shown], sep="\n")
    if more := runs[shown:]:
        print(f"... and {len(more)} more: dmlbench plan STUDY | cat")


def show_diff(study: Study, stores: Path) -> None:
    """Print the pending jobs, and why they are pending; `stores` is the folder of packed images."""
    pending = find_pending(study, stores)
    print(_summary(study, pending))
    for rule, names, note in (
        ("fetch_archives", pending.archives, " (only archives that are missing)"),
        ("pack_store", pending.stores, ""),
        ("find_duplicates", [search_target(*pair) for pair in pending.duplicates], ""),
        ("fetch_weights", pending.weights, ""),
        ("compute_features", pending.features, ""),
    ):
        if names:
            print(f"\n{rule}: {len(names)}\n  {', '.join(names)}{note}")
    for rule, jobs, describe in (
        ("trial", pending.trials, describe_trials),
        ("choose", pending.choices, describe_cells),
        ("train", pending.train, describe_runs),
        ("evaluate", pending.evaluate, describe_runs),
    ):
        if jobs:
            print(f"\n{rule}: {len(jobs)}", *reason_lines(study, jobs, describe), sep="\n  ")
    if pending.galleries:
        groups = [f"{group}: {why.text}" for group, why in pending.galleries.items()]
        print(f"\ndraw_pictures: {len(groups)}", *groups, sep="\n  ")
    if pending.last:
        print("", *(f"{rule}: {why.text}" for rule, why in pending.last.items()), sep="\n")
    if without_model := _runs_without_model(study, pending):
        print(
            f"\nkeep_model: {describe_runs(study, without_model)} have a result and no "
            "model.safetensors. To train them again: snakemake ... --forcerun FOLDER/run.json, "
            "with the folder of each run."
        )


def _summary(study: Study, pending: Pending) -> str:
    jobs = ", ".join(f"{rule} {count}" for rule, count in pending.counts.items())
    runs, stores = count_of(len(study.runs), "run"), count_of(len(study.stores), "packed store")
    lines = [f"{study.name}: {runs}, {stores}; to do: {jobs or 'nothing'}"]
    if tuning := study.settings.tuning:
        trials, cells = len(study.trials), len(study.tuned_cells)
        epochs = {trial.run.recipe.epochs for trial in study.trials.values()}
        span = " to ".join(str(count) for count in sorted({min(epochs), max(epochs)}))
        lines.append(
            f"tuning: {count_of(trials, 'trial')} for {count_of(cells, 'cell')}, each with "
            f"{count_of(tuning.folds_in_use, 'fold')} x {span} epochs"
        )
    return "\n".join(lines)


def _count_jobs(jobs: Sequence[Job]) -> str:
    """`16 trials and 4 runs`, or `4 runs`."""
    trials = sum(job.trial is not None for job in jobs)
    parts = {"trial": trials, "run": len(jobs) - trials}
    counts = [count_of(count, noun) for noun, count in parts.items() if count]
    return " and ".join(counts) or "0 runs"


def _runs_without_model(study: Study, pending: Pending) -> list[str]:
    """Paths of trained runs whose weights were not kept, although the study now keeps them."""
    if not study.settings.keep_model:
        return []
    return [
        path
        for path, run in study.runs.items()
        if run.trains
        and path not in pending.train
        and study.files.run(path).run.is_file()
        and not study.files.run(path).model.is_file()
    ]


def _cost_lines(
    study: Study, pending: Pending, stores: Path, gpus: int | None, budget: float | None
) -> list[str]:
    """The cost of the pending jobs, and what to leave out; arguments and errors as of show_plan."""
    speeds = read_throughput(study)
    name = speeds.device.name
    if speeds.device.gpus:
        per_gpu = study.settings.runs_per_gpu
        devices = Devices("GPU", gpus or speeds.device.gpus, name, per_gpu)
    elif gpus:
        raise MissingResult(
            f"--gpus {gpus}: this machine has no GPU, so the speed of one is not known."
        )
    else:
        devices = Devices("CPU", usable_cores(), name, 1)
    total = estimate_cost(study, pending, speeds, stores)
    lines = _estimate_lines(total, devices)
    if budget is None:
        return lines
    if total.unmeasured or total.uncounted:
        raise MissingResult("--budget needs the cost of all runs.\n" + "\n".join(lines))
    trials = max(map(len, study.tuned_cells.values()), default=0)
    proposal = propose(study.runs.values(), total.jobs, budget, trials)
    return lines + _proposal_lines(study, total, proposal, budget, f"{devices.unit}-hours")


def _estimate_lines(total: Cost, devices: Devices) -> list[str]:
    lines = []
    if total.jobs:
        devices_text = count_of(devices.number, "GPU" if devices.unit == "GPU" else "core")
        duration = format_duration(total.finish(devices.number))
        hours = f"{_hours(total.device_seconds)} {devices.unit}-hours"
        if total.trial_seconds:
            hours += f" ({_hours(total.trial_seconds)} of them for trials)"
        lines.append(
            f"cost: {_count_jobs(total.jobs)}, {hours} on {devices.name}; "
            f"with {devices_text} about {duration}, once images and weights are there"
        )
        if total.if_changed:
            lines.append(
                f"cost: {_hours(total.if_changed)} {devices.unit}-hours of it are only needed if "
                "other settings are chosen"
            )
        if devices.runs_per_device > 1:
            lines.append(
                "cost: this assumes that each run has a GPU of its own. How much time runs_per_gpu:"
                f" {devices.runs_per_device} saves is not known."
            )
    sizes = {
        "packed images": total.stores,
        "trials": total.trials,
        "embeddings": total.embeddings,
        "embeddings after each epoch": total.optimism,
        "models": total.models,
        "checkpoints while it runs": total.checkpoint * devices.number * devices.runs_per_device,
    }
    parts = [f"{format_bytes(size)} of {name}" for name, size in sizes.items() if size]
    if parts:
        lines.append(f"disk: {', '.join(parts)}")
    if total.unmeasured:
        lines.append(
            f"cost: not known for {_count_jobs(total.unmeasured)}. `dmlbench plan STUDY --probe` "
            "measures once how fast this machine trains and scores."
        )
    lines += [
        f"cost: not known for the runs on {name}. `snakemake data` packs and counts its images."
        for name in total.uncounted
    ]
    return lines


def _proposal_lines(
    study: Study, total: Cost, proposal: Proposal, budget: float, unit: str
) -> list[str]:
    if total.device_seconds <= budget:
        return [f"budget: {_hours(budget)} {unit} are enough"]
    fits = proposal.device_seconds <= budget
    verdict = "This plan fits" if fits else "No plan fits, and this is the smallest one"
    if total.trial_seconds:
        jobs = f"{_count_jobs(proposal.jobs)} of {_count_jobs(total.jobs)}"
    else:
        jobs = f"{len(proposal.jobs)} of {_count_jobs(total.jobs)}"
    lines = [
        f"budget: {_hours(budget)} {unit}. {verdict}: {jobs}, "
        f"{_hours(proposal.device_seconds)} {unit}.",
        *proposal.settings(study.settings.plan),
    ]
    kept = len(study.settings.plan.seeds) - len(proposal.dropped_seeds)
    if proposal.dropped_seeds and kept < MIN_SEEDS:
        lines.append(f"Intervals over fewer than {MIN_SEEDS} seeds say little.")
    return lines


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.2g}"
