"""Why a job has to run again: is its output the planned one, and if not, what changed?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from dmlbench.leaderboard.made_of import (
    HAS_HOLES,
    find_changed_files,
    read_made_of,
    results_digest,
)
from dmlbench.planning.describe_changes import describe_changes, describe_code
from dmlbench.study.result_files import RunFiles
from dmlbench.study.result_shape import DAMAGED
from dmlbench.study.run import METRICS, Run
from dmlbench.study.study import TABLES, Study
from dmlbench.tracking.sync import tracking_uri
from dmlbench.training.run_state import inspect_training
from dmlbench.utils.digests import read_text_with_digest
from dmlbench.utils.disk import DISK_STATUSES
from dmlbench.utils.fingerprint import code_digests
from dmlbench.workflow.verdict import leaderboard_line, success_message


class Reason(NamedTuple):
    """Why a job is pending."""

    text: str
    """Many runs may share it."""
    detail: str = ""
    """It belongs to one run."""


AFTER_TRAINING = Reason("after their training")
TRAINED_AGAIN = Reason("trained again since")
AFTER_OTHERS = Reason("after the others")
NOT_WRITTEN = Reason("not written yet")


class RunResults:
    """The result files of a planned run, read once."""

    def __init__(self, path: str, run: Run, files: RunFiles) -> None:
        self.path, self.run, self.files = path, run, files
        self.trained = files.read_run()
        self.scored = files.read_metrics()

    @cached_property
    def missing(self) -> list[Path]:
        """The files of the training that are not there; the model is not looked for."""
        files = self.files
        if not self.trained:
            return [file for file in files.training_files if not file.is_file()]
        return [file for file in files.find_missing(self.trained) if file != files.model]

    def why_retrain(self) -> Reason | None:
        """Why the training is not the planned one; None if it is, or if it is missing."""
        files = self.files
        if not self.trained:
            return _damaged([files.run]) if files.run.exists() else None
        if self.trained["train_key"] != self.run.train_key:
            code = code_digests(*self.run.modules)
            before, now = self.trained["settings"], self.run.settings
            changes = describe_changes(before, now, self.trained["code"], code)
            return Reason(changes or "the training's code")
        if self.trained["status"] in DISK_STATUSES:  # the disk was too full for a verdict, too
            return _failed(self.trained)
        if damaged := files.find_damaged(self.trained, quick=True):
            return _damaged(damaged)
        is_damaged = self.scored and self.scored["status"] == DAMAGED and self.is_of_training
        return _damaged([files.embeddings]) if is_damaged else None

    def why_rescore(self) -> Reason | None:
        """Why the scores are not the planned ones; None if they are, or if they are missing."""
        files = self.files
        if not self.scored:
            return _damaged([files.metrics]) if files.metrics.exists() else None
        if self.scored["eval_key"] == self.run.eval_key:
            return None if self.is_of_training else TRAINED_AGAIN
        if self.scored["train_key"] != self.run.train_key:
            return TRAINED_AGAIN
        before = {"evaluation": self.scored["settings"]}
        now = {"evaluation": self.run.metric_settings}
        changes = describe_changes(before, now, self.scored["code"], code_digests(METRICS))
        return Reason(changes or "the metrics' settings or code")

    @property
    def is_of_training(self) -> bool:
        """Whether the scores are those of the training that is there, if one is there."""
        return not (self.trained and self.scored) or (
            self.scored["training"] == self.trained["digest"]
        )

    def why_train(self) -> Reason:
        """Why there is no training."""
        if unfinished := inspect_training(self.files.state, self.run.train_key):
            is_running = unfinished.state == "running"
            return Reason("running now" if is_running else "interrupted", unfinished.place)
        if self.files.run in self.missing:
            failure = self.files.read_failure()
            is_planned = failure.get("train_key") == self.run.train_key
            return _failed(failure) if is_planned else Reason("no result yet")
        return Reason(f"no {' and '.join(file.name for file in self.missing)}")

    def why_score(self) -> Reason:
        """Why there are no scores."""
        failure = self.files.read_failure()
        is_planned = failure.get("eval_key") == self.run.eval_key
        return _failed(failure) if is_planned else Reason("not scored yet")


def why_leaderboard(study: Study, results: Sequence[RunResults]) -> Reason | None:
    """Why the leaderboard is not the planned one; None if it is."""
    made_of = read_made_of(study.files)
    if not made_of:
        is_there = study.files.table.is_file()
        return Reason("it does not say what it was made from") if is_there else NOT_WRITTEN
    if made_of["key"] == HAS_HOLES:
        return Reason(HAS_HOLES)
    if made_of["key"] != study.leaderboard_key:
        changed = describe_code(made_of["code"], code_digests(TABLES))
        return Reason(changed or "its runs or their results changed")
    if made_of["results"] != results_digest((r.path, r.trained, r.scored) for r in results):
        return Reason("results changed")
    changed_files = find_changed_files(study.files, made_of)
    return _damaged(changed_files, "missing or damaged") if changed_files else None


def why_track(study: Study) -> Reason | None:
    """Why MLflow does not hold the planned results; None if it holds them, or was never written."""
    if not study.files.tracked.is_file():
        return None
    lines = (read_text_with_digest(study.files.tracked) or "").splitlines()
    if not lines:
        return _damaged([study.files.tracked])
    if f"key {study.tracking_key(tracking_uri())}" not in lines:
        return Reason("the results, the code or the place changed")
    return None if leaderboard_line(study) in lines else Reason("the leaderboard changed")


def why_verdict(study: Study) -> Reason | None:
    """Why the verdict is not about the planned results; None if it is."""
    try:
        lines = study.files.verdict.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return NOT_WRITTEN
    except (OSError, UnicodeDecodeError):
        return _damaged([study.files.verdict])
    if success_message(study) not in lines:
        return Reason("the runs or the tracking changed")
    return None if leaderboard_line(study) in lines else Reason("the leaderboard changed")


def _damaged(files: Sequence[Path], problem: str = "damaged") -> Reason:
    """These files are not what was written."""
    return Reason(f"{problem}: {', '.join(sorted(file.name for file in files))}")


def _failed(failure: Mapping[str, Any]) -> Reason:
    return Reason(f"failed: {failure['status']}", failure["error"]["message"])
