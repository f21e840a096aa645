"""`dmlbench status`: how far a study is.

It reads only the files of the study, so it works while the study runs and afterwards, on this
machine and on a cluster.
"""

from __future__ import annotations

import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dmlbench.leaderboard.made_of import HAS_HOLES, read_made_of
from dmlbench.study.result_files import RunFiles
from dmlbench.study.result_shape import SETTLED
from dmlbench.study.run import Run
from dmlbench.study.study import Study
from dmlbench.study.tuning import Trial
from dmlbench.study.tuning_files import TrialFiles
from dmlbench.training.run_state import UnfinishedTraining, inspect_training
from dmlbench.utils.text import count_of, format_duration
from dmlbench.workflow.failed_jobs import FailedJob, why_failed
from dmlbench.workflow.job_log import read_failure
from dmlbench.workflow.study_lock import Worker, find_worker
from dmlbench.workflow.submitted_jobs import SubmittedJobs

STATES = {
    "done": "done",
    "running": "running",
    "starting": "starting on a node",
    "queued": "queued",
    "unscored": "trained, not scored yet",
    "waiting": "waiting",
    "stopped": "stopped, can continue",
    "silent": "without a sign of life",
    "dead": "killed, can continue",
    "stale": "waiting, with a result from other settings or code",
    "failed": "failed",
}
FINISHED = frozenset({"done", "failed"})
MAX_ROWS = 20
"""Rows of a table; longer tables are cut."""
MAX_REASON = 200
"""Characters of the reason of a failed run that has no result; the rest is in its log."""
MAX_REASON_LINES = 8
"""Lines of the reason of a failed job; the rest is in its log."""
SAMPLE = 500
"""About this many finished trainings say how long the others will take."""


class RunStatus(NamedTuple):
    """How far a run is, or a trial of settings for a run."""

    run: Run
    """Of a trial, what it trains."""
    state: str
    """A key of STATES."""
    reason: str = ""
    """Why it failed."""
    unfinished: UnfinishedTraining | None = None
    """The training that was begun and has not finished."""
    trained: RunFiles | TrialFiles | None = None
    """The files of its finished training. They are read when somebody asks: in a study of 10,000
    runs that takes seconds."""
    has_result: bool = True
    """Whether a failed run says so in a result. Else only the log of its last job does."""
    trial: Trial | None = None

    @property
    def path(self) -> str:
        """Its name in the study."""
        return self.trial.path if self.trial else self.run.path

    @property
    def folds(self) -> int:
        """The number of models that it trains, one after the other."""
        return self.trial.tuning.folds_in_use if self.trial else self.run.models

    @property
    def train_seconds(self) -> float:
        """How long its finished training took: `wall_seconds` is of its last attempt,
        `train_seconds` of all."""
        origin = self._provenance()
        return max(origin.get("wall_seconds") or 0.0, origin.get("train_seconds") or 0.0)

    @property
    def on_gpu(self) -> bool:
        """Whether its finished training ran on a GPU."""
        return not (self._provenance().get("device") or "cpu").startswith("cpu")

    def _provenance(self) -> dict[str, Any]:
        if isinstance(self.trained, TrialFiles):
            result = self.trained.read_trial()
        else:
            result = self.trained.read_run() if self.trained else None
        return result["provenance"] if result else {}


def read_statuses(study: Study, is_over: bool = False) -> list[RunStatus]:
    """How far each trial and each run of `study` is, in the order of the plan.

    Args:
        is_over: the process that works on the study asks, and all of its jobs have ended.
    """
    unfinished = {*study.files.unfinished()}
    worker = None if is_over else find_worker(study)
    submitted = SubmittedJobs.read()
    trials = [
        _read_trial_status(trial, study.files.trial(path), path in unfinished, worker, submitted)
        for path, trial in study.trials.items()
    ]
    choices = {cell: study.files.choice(cell).read_chosen() for cell in study.tuned_cells}
    runs = []
    for path, run in study.runs.items():
        files, choice = study.files.run(path), choices.get(run.cell)
        runs.append(_read_status(run, files, choice, path in unfinished, worker, submitted))
    return trials + runs


def _read_trial_status(
    trial: Trial,
    files: TrialFiles,
    is_unfinished: bool,
    worker: Worker | None,
    submitted: SubmittedJobs,
) -> RunStatus:
    unfinished = inspect_training(files.state, trial.key) if is_unfinished else None
    unfinished = unfinished and submitted.correct(unfinished)

    def status(state: str, reason: str = "", **more: Any) -> RunStatus:
        return RunStatus(trial.run, state, reason, unfinished, trial=trial, **more)

    if unfinished and unfinished.state == "running":
        return status("running")
    tried = files.read_trial()
    place = submitted.place(files.trial)
    if tried and tried["key"] == trial.key and tried["status"] in SETTLED:
        return status("done", trained=files)
    if place in ("queued", "starting"):
        return status(place)
    if unfinished:
        return status(unfinished.state)
    if tried and tried["key"] == trial.key:
        return status("failed", _reason(tried))
    if reason := _why_training_failed(files.log, files.trial, worker):
        return status("failed", reason, has_result=False)
    if place == "gone" and not worker:
        return status("dead", "its job ended before the training began")
    return status("stale" if tried else "waiting")


def _read_status(
    run: Run,
    files: RunFiles,
    choice: dict[str, Any] | None,
    is_unfinished: bool,
    worker: Worker | None,
    submitted: SubmittedJobs,
) -> RunStatus:
    unfinished = inspect_training(files.state, run.train_key) if is_unfinished else None
    unfinished = unfinished and submitted.correct(unfinished)
    if unfinished and unfinished.state == "running":
        return RunStatus(run, "running", unfinished=unfinished)
    is_stale = choice is not None and _has_other_settings(files, choice)
    scored = files.read_metrics()
    if scored and scored["eval_key"] == run.eval_key and not is_stale:
        if scored["status"] != "ok":
            return RunStatus(run, "failed", _reason(scored))
        return RunStatus(run, "done", trained=files)
    trained = files.read_run()
    failure = {} if scored else files.read_failure()
    if trained and trained["train_key"] == run.train_key and not is_stale:
        if trained["status"] != "ok":
            return RunStatus(run, "failed", _reason(trained))
        if failure.get("eval_key") == run.eval_key:
            return RunStatus(run, "failed", _reason(failure))
        if not scored and (reason := _why_job_failed(files.evaluate_log, files.run, worker)):
            return RunStatus(run, "failed", f"scoring: {reason}", has_result=False)
        return RunStatus(run, "unscored", trained=files)
    place = submitted.place(files.run, files.metrics)
    if place in ("queued", "starting"):
        return RunStatus(run, place, unfinished=unfinished)
    if unfinished:
        return RunStatus(run, unfinished.state, unfinished=unfinished)
    if failure.get("train_key") == run.train_key and not trained:
        return RunStatus(run, "failed", _reason(failure))
    if reason := _why_training_failed(files.train_log, files.run, worker):
        return RunStatus(run, "failed", reason, has_result=False)
    if place == "gone" and not worker:
        return RunStatus(run, "dead", "its job ended before the training began")
    return RunStatus(run, "stale" if trained else "waiting")


def _has_other_settings(files: RunFiles, choice: dict[str, Any]) -> bool:
    """Whether a run was trained with other settings than those that are chosen now."""
    trained = files.read_run()
    return trained is not None and trained.get("chosen") != choice["chosen"]


def _why_training_failed(log: Path, result: Path, worker: Worker | None) -> str | None:
    """Why the training of `log` failed, in one line; None if it did not, or has left a result.

    One that ends without a message and without a result has not begun, or can continue.
    """
    says_why = read_failure(log) is not None
    reason = _why_job_failed(log, result, worker) if says_why else None
    return f"training: {reason}" if reason else None


def _why_job_failed(log: Path, older: Path, worker: Worker | None) -> str | None:
    """Why the job of `log` failed, in one line; None if it did not, or not after `older`."""
    try:
        if older.is_file() and older.stat().st_mtime > log.stat().st_mtime:
            return None
        reason = why_failed(log, worker)
    except FileNotFoundError:  # there is no log
        return None
    return f"{textwrap.shorten(reason, MAX_REASON)} (see {log})" if reason else None


def _reason(result: dict[str, Any]) -> str:
    return f"{result['status']}: {result['error']['message']}"


def format_statuses(
    study: Study,
    statuses: list[RunStatus],
    failed_jobs: Sequence[FailedJob] = (),
    notes: Sequence[str] = (),
) -> list[str]:
    """The lines that `dmlbench status` prints.

    Args:
        notes: lines about who works on the study.
    """
    runs = [status for status in statuses if not status.trial]
    trials = [status for status in statuses if status.trial]
    lines = [f"{study.name}: {len(runs)} runs: {_count_states(runs)}"]
    if trials:
        lines.append(f"{len(trials)} trials: {_count_states(trials)}")
    by_state = {state: [s for s in statuses if s.state == state] for state in STATES}
    lines += [line for line in (_time_left(statuses), *notes) if line]
    if by_state["running"]:
        header = ("running", "step", "loss", "images/s", "left", "device", "host")
        rows = [header, *map(_running_row, by_state["running"][:MAX_ROWS])]
        lines += ["", *as_table(rows), *_more(by_state["running"])]
    if interrupted := by_state["stopped"] + by_state["silent"] + by_state["dead"]:
        rows = [("not running", "", ""), *map(_interrupted_row, interrupted[:MAX_ROWS])]
        lines += ["", *as_table(rows), *_more(interrupted)]
    if failed := by_state["failed"]:
        rows = [("failed", "reason"), *((s.path, s.reason) for s in failed[:MAX_ROWS])]
        lines += ["", *as_table(rows), *_more(failed)]
    if failed_jobs:
        lines += ["", "These jobs failed; the same `snakemake` call tries them again:"]
        lines += [line for job in failed_jobs for line in _failed_job_lines(job)]
    if by_state["stale"]:
        lines += ["", "To see what changed: dmlbench plan STUDY --diff"]
    table = study.files.table
    if table.is_file():
        remark = "" if all(s.state in FINISHED for s in statuses) else " (outdated)"
        if (read_made_of(study.files) or {}).get("key") == HAS_HOLES:
            remark = " (with holes)"
        lines += ["", f"The leaderboard{remark}: {table}"]
    return lines


def _count_states(statuses: Iterable[RunStatus]) -> str:
    counts = Counter(status.state for status in statuses)
    return ", ".join(f"{counts[state]} {text}" for state, text in STATES.items() if counts[state])


def _time_left(statuses: Iterable[RunStatus]) -> str:
    """An estimate of the time left; empty if nothing is known, or nothing is left to train.

    It adds what the running trainings say and, for each waiting one, the mean time of a fold of the
    finished ones, or of a sample of them. It assumes that as many trainings run at once as now.
    """
    trainings = [status for status in statuses if status.run.trains]
    running = [s for s in trainings if s.state == "running" and s.unfinished]
    waiting = [s for s in trainings if s.state not in {"running", "unscored"} | FINISHED]
    if not (running or waiting):
        return ""
    finished = [status for status in trainings if status.trained]
    sample = finished[:: len(finished) // SAMPLE or 1]
    times = [seconds / status.folds for status in sample if (seconds := status.train_seconds)]
    if not times:  # none has finished: use what the running ones will have taken
        progress = [s.unfinished.progress for s in running if s.unfinished]
        times = [p["steps"] / p["steps_per_second"] for p in progress if p.get("steps_per_second")]
    if not times:
        return ""
    mean = sum(times) / len(times)
    left = sum(status.folds for status in waiting) * mean
    left += sum(_seconds_left(status, mean) for status in running)
    if not running:
        return f"about {format_duration(left)} of training left, one at a time; none is running"
    return f"about {format_duration(left / len(running))} left, {len(running)} at a time"


def _seconds_left(status: RunStatus, mean: float) -> float:
    """Seconds that a running training still needs; `mean` for each fold that has not begun."""
    assert status.unfinished
    progress, part = status.unfinished.progress, status.unfinished.part
    later = status.folds - 1 - (int(part.removeprefix("fold")) if part else 0)
    if (left := progress.get("seconds_left")) is None:
        left = mean
    else:
        left = max(0.0, left - (time.time() - progress["time"]))
    return float(left + later * mean)


def _running_row(status: RunStatus) -> tuple[str, ...]:
    assert status.unfinished
    progress, part = status.unfinished.progress, status.unfinished.part
    if not progress:
        return (status.path, "starts", *[""] * 5)
    rate = progress["steps_per_second"]
    left = _seconds_left(status, progress["steps"] / rate) if rate else None
    return (
        status.path,
        f"{progress['step']}/{progress['steps']}" + (f" of {part}" if part else ""),
        f"{progress['loss']:.4g}",
        f"{rate * status.run.recipe.batch_size:.0f}",
        "" if left is None else format_duration(left),
        progress["device"],
        progress["host"],
    )


def _interrupted_row(status: RunStatus) -> tuple[str, ...]:
    training = status.unfinished
    if not training:
        return status.path, status.reason, ""
    host = training.progress.get("host", "another machine")
    text = {
        "stopped": f"stopped {training.place}",
        "silent": f"no sign from {host} for {format_duration(training.quiet)}, {training.place}",
        "dead": f"killed {training.place}",
    }[training.state]
    idle = f"{count_of(training.idle, 'earlier attempt')} made no progress"
    return status.path, text, idle if training.idle else ""


def _failed_job_lines(job: FailedJob) -> list[str]:
    first, *rest = job.reason.splitlines()
    more = [f"... and {len(rest) - MAX_REASON_LINES} more lines"] * (len(rest) > MAX_REASON_LINES)
    indented = [f"    {line}" for line in (*rest[:MAX_REASON_LINES], *more, f"log: {job.log}")]
    return [f"  {job.name}: {first}", *indented]


def as_table(rows: list[tuple[str, ...]]) -> list[str]:
    """The rows as lines, with their columns aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _more(statuses: list[RunStatus]) -> list[str]:
    return [f"... and {len(statuses) - MAX_ROWS} more"] if len(statuses) > MAX_ROWS else []
