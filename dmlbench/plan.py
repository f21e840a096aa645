"""`dmlbench plan`: the runs of a study, and what is to be done for them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dmlbench.due import AFTER_TRAINING, Due, Why, due
from dmlbench.price import price
from dmlbench.run import Run
from dmlbench.study import Study

AXES = ("dataset", "backbone", "loss", "seed")
NAMES = 4  # of an axis that are written out


def show_plan(
    study: Study, stores: Path, devices: int | None = None, budget: float | None = None
) -> None:
    """Each run with its key; on stderr, how many they are, what is to be done, what that costs on
    `devices` GPUs, and what to leave out so that it takes `budget` seconds of them.

    Raises:
        MissingResult: there is no GPU here, or too little is known for a budget.
    """
    found = due(study, stores)
    lines = price(study, found, stores, devices, budget)
    for path, run in study.runs.items():
        print(f"{path}  {run.train_key}")
    print(_summary(study, found), *lines, sep="\n", file=sys.stderr)


def show_diff(study: Study, stores: Path) -> None:
    """The jobs that are due, and why."""
    found = due(study, stores)
    print(_summary(study, found))
    if found.archives:
        of = ", ".join(found.archives)
        print(f"\narchives: {len(found.archives)}\n  to be fetched, if they are not there: {of}")
    if found.store:
        print(f"\nstore: {len(found.store)}\n  to be packed: {', '.join(found.store)}")
    if found.weights:
        print(f"\nweights: {len(found.weights)}\n  to be fetched: {', '.join(found.weights)}")
    for rule, jobs in (("train", found.train), ("evaluate", found.evaluate)):
        if jobs:
            print(f"\n{rule}: {len(jobs)}")
            for line in _grouped(study, jobs):
                print(f"  {line}")
    last = {"tables": found.tables, "track": found.track, "verdict": found.verdict}
    if rest := [f"{rule}: {why.text}" for rule, why in last.items() if why]:
        print("", *rest, sep="\n")
    if found.holes:
        holes = [study.runs[path] for path in found.holes]
        print(
            f"\nResult files of {_which(study, holes)} are gone, and snakemake does not look for "
            f"them: remove {study.folder}/verdict.txt, and it makes them again."
        )
    if lost := _without_model(study, found):
        print(
            f"\nkeep_model: {_which(study, lost)} have a result and no model.safetensors. "
            "To train them again: snakemake ... --forcerun FOLDER/run.json of each."
        )


def _summary(study: Study, found: Due) -> str:
    todo = ", ".join(f"{rule} {count}" for rule, count in found.counts.items())
    stores = f"{len(study.stores)} packed store{'s' * (len(study.stores) != 1)}"
    return f"{study.name}: {len(study.runs)} runs, {stores}; to do: {todo or 'nothing'}"


def _grouped(study: Study, jobs: Mapping[str, Why]) -> list[str]:
    """A reason a line, with the number of its runs and which they are; the commonest first."""
    groups: dict[str, list[str]] = {}
    for path, why in jobs.items():
        groups.setdefault(why.text, []).append(path)
    lines = []
    for text, paths in sorted(groups.items(), key=lambda item: -len(item[1])):
        if text == AFTER_TRAINING.text:
            lines.append(f"{text}: {len(paths)}")
            continue
        details = {jobs[path].detail: None for path in paths}
        first = next(iter(details))
        detail = f" ({first}{', ...' * (len(details) > 1)})" if first else ""
        lines.append(f"{text}{detail}: {_which(study, [study.runs[path] for path in paths])}")
    return lines


def _which(study: Study, runs: Sequence[Run]) -> str:
    """How many runs, and which: `24 runs (letters x small x all 8 losses x all 3 seeds)`."""
    axes, cells = [], 1
    trainings = all(run.trains for run in runs)
    others = [run for run in study.runs.values() if run.trains or not trainings]
    for axis in AXES:
        names = {str(getattr(run, axis)): None for run in runs}
        of_all = len({str(getattr(run, axis)) for run in others})
        cells *= len(names)
        if len(names) == of_all > 1:
            axes.append(f"all {of_all} {axis}{'es' if axis == 'loss' else 's'}")
        else:
            shown = ", ".join([*names][:NAMES])
            more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
            axes.append(f"{axis} {shown}{more}" if axis == "seed" else shown + more)
    among = "" if cells == len(runs) else "among "
    return f"{len(runs)} run{'s' * (len(runs) != 1)} ({among}{' x '.join(axes)})"


def _without_model(study: Study, found: Due) -> list[Run]:
    """Trained runs whose weights are asked for and were not kept."""
    return [
        run
        for path, run in study.runs.items()
        if study.settings.keep_model
        and run.trains
        and path not in found.train
        and (study.folder / "runs" / path / "run.json").is_file()
        and not (study.folder / "runs" / path / "model.safetensors").is_file()
    ]
