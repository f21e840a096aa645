"""Which runs, trials or cells there are, in a line of text however many they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from dmlbench.planning.pending import AFTER_CHOICE, AFTER_TRAINING, AFTER_TRIALS, Reason
from dmlbench.study.run import Run
from dmlbench.study.study import Study
from dmlbench.utils.text import count_of, some_of

MAX_NAMES = 4
"""Names of an axis that are written out."""
NUMBERED = ("seed", "trial")
"""Axes whose names are numbers, which are shown with the axis."""
EXPECTED = {reason.text for reason in (AFTER_TRIALS, AFTER_CHOICE, AFTER_TRAINING)}
"""Reasons that follow from other jobs: these are named already."""

Names = Mapping[str, str]
"""Axis -> name, as {"dataset": "sop", ..., "trial": "3"}."""
Describe = Callable[[Study, Sequence[str]], str]
"""Describes the jobs at these paths."""


def describe_runs(study: Study, paths: Sequence[str]) -> str:
    """How many runs, and which: `24 runs (letters x small x all 8 losses x all 3 seeds)`.

    `among` is put before the axes if these runs are not every combination of them.
    """
    runs = [study.runs[path] for path in paths]
    trainings = all(run.trains for run in runs)
    planned = [run for run in study.runs.values() if run.trains or not trainings]
    return _describe("run", map(_names_of_run, runs), map(_names_of_run, planned))


def describe_trials(study: Study, paths: Sequence[str]) -> str:
    """How many trials, and which, as `describe_runs` does."""
    return _describe("trial", map(_names_of_trial, paths), map(_names_of_trial, study.trials))


def describe_cells(study: Study, cells: Sequence[str]) -> str:
    """How many tuned cells, and which, as `describe_runs` does."""
    return _describe("cell", map(_names_of_cell, cells), map(_names_of_cell, study.tuned_cells))


def reason_lines(study: Study, jobs: Mapping[str, Reason], describe: Describe) -> list[str]:
    """A line for each reason, with its jobs; the most frequent reason first.

    Args:
        jobs: path -> why the job is pending.
    """
    paths_by_text: dict[str, list[str]] = {}
    for path, reason in jobs.items():
        paths_by_text.setdefault(reason.text, []).append(path)
    lines = []
    for text, paths in sorted(paths_by_text.items(), key=lambda item: -len(item[1])):
        if text in EXPECTED:
            lines.append(f"{text}: {len(paths)}")
            continue
        details = {jobs[path].detail: None for path in paths}
        first = next(iter(details))
        more = ", ..." if len(details) > 1 else ""
        detail = f" ({first}{more})" if first else ""
        lines.append(f"{text}{detail}: {describe(study, paths)}")
    return lines


def _describe(noun: str, jobs: Iterable[Names], planned: Iterable[Names]) -> str:
    jobs, planned = [*jobs], [*planned]
    axes, cells = [], 1
    for axis in jobs[0]:
        names = {job[axis]: None for job in jobs}
        count = len({job[axis] for job in planned})
        cells *= len(names)
        if len(names) == count > 1:
            axes.append(f"all {count_of(count, axis)}")
        else:
            shown = some_of(names, MAX_NAMES)
            axes.append(f"{axis} {shown}" if axis in NUMBERED else shown)
    among = "" if cells == len(jobs) else "among "
    return f"{count_of(len(jobs), noun)} ({among}{' x '.join(axes)})"


def _names_of_run(run: Run) -> Names:
    return {**_names_of_cell(run.cell), "seed": str(run.seed)}


def _names_of_trial(path: str) -> Names:
    cell, _, trial = path.rpartition("/trial")
    return {**_names_of_cell(cell), "trial": trial}


def _names_of_cell(cell: str) -> Names:
    return dict(zip(("dataset", "backbone", "loss"), cell.split("/"), strict=True))
