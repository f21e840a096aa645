"""What is written and said when Snakemake has ended and some of its jobs failed for good.

The leaderboard waits for all runs. If some cannot have a result, it is written with a hole for each
of them. No result is made up: the next call runs exactly what is missing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from dmlbench.datasets.store.duplicates_file import search_target
from dmlbench.leaderboard.build import build_leaderboard
from dmlbench.leaderboard.made_of import failed_plot_lines
from dmlbench.leaderboard.table import Hole, read_available_results
from dmlbench.study.features import features_of
from dmlbench.study.run import Run
from dmlbench.study.study import Study
from dmlbench.tracking.sync import track, tracking_uri
from dmlbench.utils.disk import DISK_FULL
from dmlbench.utils.errors import UserError
from dmlbench.workflow.failed_jobs import FailedJob, find_failed_jobs
from dmlbench.workflow.status import MAX_REASON, RunStatus, read_statuses
from dmlbench.workflow.verdict import describe_failures, verdict

LOST = frozenset({"stopped", "silent", "dead"})
"""States of a training that has begun and left no result."""

FailedJobs = Mapping[tuple[str, str], FailedJob]
"""(rule, target) -> job."""


def conclude(study: Study, data: Path) -> None:
    """Write the leaderboard of `study` with holes, and MLflow's runs; say which runs failed.

    Nothing of it raises: whatever cannot be written is said.

    Args:
        data: the folder of archives, packed stores and weights.
    """
    holes = find_holes(study, data)
    try:
        failed_plots = build_leaderboard(study, holes)
    except Exception as error:
        _say("The leaderboard cannot be written", error)
        print(*describe_failures(study, holes), sep="\n", flush=True)
        return
    for line in failed_plot_lines(failed_plots):
        print(line)
    if study.settings.tracking:
        try:
            print(track(study, tracking_uri()))
        except Exception as error:
            _say("The results cannot be written to MLflow", error)
    verdict(study, holes)
    print(f"The leaderboard: {study.files.page}", flush=True)


def find_holes(study: Study, data: Path) -> dict[str, Hole]:
    """Path of each run that has no result -> why. All jobs of the study must have ended.

    Args:
        data: the folder of archives, packed stores and weights.
    """
    results = read_available_results(study.rows, study.files)
    available = {result.planned["path"] for result in results}
    failed = {(job.rule, job.target): job for job in find_failed_jobs(study, data, is_over=True)}
    statuses = read_statuses(study, is_over=True)
    trials: dict[str, list[RunStatus]] = {}
    for status in statuses:
        if status.trial:
            trials.setdefault(status.trial.cell, []).append(status)
    return {
        status.path: _explain(status, failed, trials.get(status.run.cell, ()))
        for status in statuses
        if not status.trial and status.path not in available
    }


def _explain(status: RunStatus, failed: FailedJobs, trials: Sequence[RunStatus] = ()) -> Hole:
    """Why the run of `status` has no result; `trials`: those of its cell, if it is tuned."""
    if status.state == "failed":
        kind, _, message = status.reason.partition(": ")
        if kind in ("training", "scoring"):  # the job wrote no result, and said why
            return Hole("disk_full" if DISK_FULL in message else "error", status.reason)
        return Hole(kind, message)
    if status.state == "done":
        return Hole("damaged", "its result files are damaged")
    if status.state in LOST:
        place = status.unfinished.place if status.unfinished else "before the training began"
        obstacle = status.unfinished.obstacle if status.unfinished else ""
        ending = f"its job ended without a result, {place}"
        return Hole("lost", ": ".join(filter(None, [ending, obstacle])))
    hole = _find_obstacle(status.run, failed) or _find_untuned(status.run, failed, trials)
    return hole or Hole("not_run", "its job was not started")


def _find_untuned(run: Run, failed: FailedJobs, trials: Sequence[RunStatus]) -> Hole | None:
    """The choice that had to come before `run`, or one of its trials, which failed."""
    what = "its settings are not chosen"
    if job := failed.get(("choose", run.cell)):
        return _hole("not_tuned", what, job)
    for trial in trials:
        has_result = trial.state == "done" or (trial.state == "failed" and trial.has_result)
        reason = Hole("ok", "") if has_result else _explain(trial, failed)
        if reason.status not in ("ok", "not_run"):
            return Hole("not_tuned", f"{what}: {trial.path}: {reason.status}: {reason.message}")
    return None


def _find_obstacle(run: Run, failed: FailedJobs) -> Hole | None:
    """The job that had to come before `run` or its trials, and failed."""
    for store in run.stores:
        for rule in ("fetch_archives", "pack_store"):
            if job := failed.get((rule, store)):
                return _hole("missing_data", "its images are missing", job)
    if run.uses_model and run.weights and (job := failed.get(("fetch_weights", run.weights))):
        return _hole("missing_weights", "its weights are missing", job)
    for features in features_of(run):
        if job := failed.get(("compute_features", features.path)):
            return _hole("missing_data", "the features of its backbone are missing", job)
    search = "find_duplicates", search_target(*run.searched)
    if job := failed.get(search):
        return _hole("missing_data", "nobody knows its near-duplicates", job)
    return None


def _hole(status: str, what: str, job: FailedJob) -> Hole:
    return Hole(status, f"{what}: {textwrap.shorten(job.reason, MAX_REASON)} (see {job.log})")


def _say(what: str, error: Exception) -> None:
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    print(f"{what}: {text}", flush=True)
