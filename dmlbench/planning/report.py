"""`dmlbench plan`: the runs of a study, what is to be done for them, and what that costs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dmlbench.planning.budget import MIN_SEEDS, Proposal, propose
from dmlbench.planning.cost import Cost, estimate_cost
from dmlbench.planning.pending import AFTER_TRAINING, Pending, Reason, find_pending
from dmlbench.planning.throughput import read_throughput
from dmlbench.study.run import Run
from dmlbench.study.study import Study
from dmlbench.utils.cores import usable_cores
from dmlbench.utils.errors import MissingResult
from dmlbench.utils.text import count_of, format_bytes, format_duration

AXES = ("dataset", "backbone", "loss", "seed")
MAX_NAMES = 4
"""Names of an axis that are written out."""
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
        ("fetch_weights", pending.weights, ""),
    ):
        if names:
            print(f"\n{rule}: {len(names)}\n  {', '.join(names)}{note}")
    for rule, jobs in (("train", pending.train), ("evaluate", pending.evaluate)):
        if jobs:
            print(f"\n{rule}: {len(jobs)}", *_reason_lines(study, jobs), sep="\n  ")
    if pending.last:
        print("", *(f"{rule}: {why.text}" for rule, why in pending.last.items()), sep="\n")
    if without_model := _runs_without_model(study, pending):
        print(
            f"\nkeep_model: {describe_runs(study, without_model)} have a result and no "
            "model.safetensors. To train them again: snakemake ... --forcerun FOLDER/run.json, "
            "with the folder of each run."
        )


def describe_runs(study: Study, runs: Sequence[Run]) -> str:
    """How many runs, and which: `24 runs (letters x small x all 8 losses x all 3 seeds)`.

    `among` is put before the axes if these runs are not every combination of them.
    """
    axes, cells = [], 1
    trainings = all(run.trains for run in runs)
    comparable = [run for run in study.runs.values() if run.trains or not trainings]
    for axis in AXES:
        names = {str(getattr(run, axis)): None for run in runs}
        planned = len({str(getattr(run, axis)) for run in comparable})
        cells *= len(names)
        if len(names) == planned > 1:
            axes.append(f"all {count_of(planned, axis)}")
        else:
            shown = ", ".join([*names][:MAX_NAMES])
            more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
            axes.append(f"{axis} {shown}{more}" if axis == "seed" else shown + more)
    among = "" if cells == len(runs) else "among "
    return f"{count_of(len(runs), 'run')} ({among}{' x '.join(axes)})"


def _summary(study: Study, pending: Pending) -> str:
    jobs = ", ".join(f"{rule} {count}" for rule, count in pending.counts.items())
    runs, stores = count_of(len(study.runs), "run"), count_of(len(study.stores), "packed store")
    return f"{study.name}: {runs}, {stores}; to do: {jobs or 'nothing'}"


def _reason_lines(study: Study, jobs: Mapping[str, Reason]) -> list[str]:
    """A line for each reason, with its runs; the most frequent reason first."""
    paths_by_text: dict[str, list[str]] = {}
    for path, reason in jobs.items():
        paths_by_text.setdefault(reason.text, []).append(path)
    lines = []
    for text, paths in sorted(paths_by_text.items(), key=lambda item: -len(item[1])):
        if text == AFTER_TRAINING.text:
            lines.append(f"{text}: {len(paths)}")
            continue
        details = {jobs[path].detail: None for path in paths}
        first = next(iter(details))
        more = ", ..." if len(details) > 1 else ""
        detail = f" ({first}{more})" if first else ""
        runs = describe_runs(study, [study.runs[path] for path in paths])
        lines.append(f"{text}{detail}: {runs}")
    return lines


def _runs_without_model(study: Study, pending: Pending) -> list[Run]:
    """Trained runs whose weights were not kept, although the study now keeps them."""
    if not study.settings.keep_model:
        return []
    return [
        run
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
    proposal = propose(study.runs.values(), total.jobs, budget)
    return lines + _proposal_lines(study, total, proposal, budget, f"{devices.unit}-hours")


def _estimate_lines(total: Cost, devices: Devices) -> list[str]:
    lines = []
    if total.jobs:
        runs = count_of(len(total.jobs), "run")
        devices_text = count_of(devices.number, "GPU" if devices.unit == "GPU" else "core")
        duration = format_duration(total.finish(devices.number))
        lines.append(
            f"cost: {runs}, {_hours(total.device_seconds)} {devices.unit}-hours on {devices.name}; "
            f"with {devices_text} about {duration}, once images and weights are there"
        )
        if devices.runs_per_device > 1:
            lines.append(
                "cost: this assumes that each run has a GPU of its own. How much time runs_per_gpu:"
                f" {devices.runs_per_device} saves is not known."
            )
    sizes = {
        "packed images": total.stores,
        "embeddings": total.embeddings,
        "models": total.models,
        "checkpoints while it runs": total.checkpoint * devices.number * devices.runs_per_device,
    }
    parts = [f"{format_bytes(size)} of {name}" for name, size in sizes.items() if size]
    if parts:
        lines.append(f"disk: {', '.join(parts)}")
    if total.unmeasured:
        runs = count_of(len(total.unmeasured), "run")
        lines.append(
            f"cost: not known for {runs}. `dmlbench plan STUDY --probe` measures once how fast "
            "this machine trains and scores."
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
    runs = count_of(len(total.jobs), "run")
    lines = [
        f"budget: {_hours(budget)} {unit}. {verdict}: {len(proposal.jobs)} of {runs}, "
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
