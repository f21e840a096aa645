"""Why a job has to run again: is its output the planned one, and if not, what changed?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dmlbench.planning.describe_changes import describe_changes, describe_code
from dmlbench.study.result_files import RunFiles
from dmlbench.study.run import METRICS, Run
from dmlbench.study.study import TABLES, Study
from dmlbench.tracking.sync import tracking_uri
from dmlbench.training.run_state import inspect_training
from dmlbench.utils.files import read_json_if_whole
from dmlbench.utils.fingerprint import code_digests
from dmlbench.workflow.verdict import success_message


class Reason(NamedTuple):
    """Why a job is pending."""

    text: str
    """Many runs may share it."""
    detail: str = ""
    """It belongs to one run."""


AFTER_TRAINING = Reason("after their training")
TRAINED_AGAIN = Reason("trained again since")
AFTER_OTHERS = Reason("after the others")


class RunResults:
    """The result files of a planned run, read once."""

    def __init__(self, path: str, run: Run, files: RunFiles) -> None:
        self.path, self.run, self.files = path, run, files
        self.trained = files.read_run()
        self.scored = files.read_metrics()
        self.times = {file: changed_at(file) for file in (*files.training_files, files.metrics)}
        self.newest = max(self.times[files.run], self.times[files.metrics])

    def is_missing(self, *files: Path) -> bool:
        return not all(self.times[file] for file in files)

    def why_retrain(self) -> Reason | None:
        """Why the training is not the planned one; None if it is, or if it is missing."""
        if not self.trained or self.trained["train_key"] == self.run.train_key:
            return None
        code = code_digests(*self.run.modules)
        before, now = self.trained["settings"], self.run.settings
        changes = describe_changes(before, now, self.trained.get("code"), code)
        return Reason(changes or "the training's code")

    def why_rescore(self) -> Reason | None:
        """Why the scores are not the planned ones; None if they are, or if they are missing."""
        if not self.scored:
            return None
        if self.scored["eval_key"] == self.run.eval_key:
            inputs = max(self.times[self.files.run], self.times[self.files.embeddings])
            is_older = inputs > self.times[self.files.metrics]
            return TRAINED_AGAIN if is_older else None
        if self.scored["train_key"] != self.run.train_key:
            return TRAINED_AGAIN
        now = {"evaluation": self.run.metric_settings}
        before = {"evaluation": self.scored["settings"]} if "settings" in self.scored else now
        changes = describe_changes(before, now, self.scored.get("code"), code_digests(METRICS))
        return Reason(changes or "the metrics' settings or code")

    def why_train(self) -> Reason:
        """Why there is no training."""
        if unfinished := inspect_training(self.files.state, self.run.train_key):
            is_running = unfinished.state == "running"
            return Reason("running now" if is_running else "interrupted", unfinished.place)
        if self.is_missing(self.files.run):
            failure = self.files.read_failure()
            is_planned = failure.get("train_key") == self.run.train_key
            return _failed(failure) if is_planned else Reason("no result yet")
        files = (self.files.embeddings, self.files.history)
        return Reason(f"no {' and '.join(file.name for file in files if self.is_missing(file))}")

    def why_score(self) -> Reason:
        """Why there are no scores."""
        failure = self.files.read_failure()
        is_planned = failure.get("eval_key") == self.run.eval_key
        return _failed(failure) if is_planned else Reason("not scored yet")


def why_leaderboard(study: Study, newest: int) -> Reason | None:
    """Why the leaderboard is not the planned one; None if it is, or if it is missing.

    `newest` is the time of the last result.
    """
    made_of = read_json_if_whole(study.files.made_of)
    if not study.files.table.is_file():
        return None
    if not made_of:
        return Reason("it does not say what it was made from")
    if made_of["key"] != study.leaderboard_key:
        changed = describe_code(made_of["code"], code_digests(TABLES))
        return Reason(changed or "its runs or their results changed")
    return Reason("results are newer") if newest > changed_at(study.files.table) else None


def why_track(study: Study) -> Reason | None:
    """Why MLflow does not hold the planned results; None if it holds them, or was never written."""
    tracked = study.files.tracked
    if not tracked.is_file():
        return None
    if f"key {study.tracking_key(tracking_uri())}" not in tracked.read_text("utf-8"):
        return Reason("the results, the code or the place changed")
    return (
        Reason("the table is newer")
        if changed_at(study.files.table) > changed_at(tracked)
        else None
    )


def why_verdict(study: Study, newest: int) -> Reason | None:
    """Why the verdict is not about the planned results; None if it is.

    `newest` is the time of the last file that it depends on.
    """
    verdict = study.files.verdict
    if not verdict.is_file():
        return Reason("not written yet")
    if success_message(study) not in verdict.read_text("utf-8").splitlines():
        return Reason("the runs or the tracking changed")
    return Reason("results are newer") if newest > changed_at(verdict) else None


def changed_at(path: Path) -> int:
    """The time of the last change in nanoseconds; 0 if there is no such file."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _failed(failure: Mapping[str, Any]) -> Reason:
    return Reason(f"failed: {failure['status']}", failure["error"]["message"])
