"""Why a job has to run again: is its output the planned one, and if not, what changed?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from dmlbench.gallery.made_of import has_more_embeddings
from dmlbench.leaderboard.made_of import (
    HAS_HOLES,
    find_changed_files,
    read_made_of,
)
from dmlbench.planning.describe_changes import describe_changes, describe_code
from dmlbench.study.result_files import RunFiles
from dmlbench.study.result_shape import DAMAGED, OK
from dmlbench.study.run import Run
from dmlbench.study.study import PICTURES, TABLES, Study
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
SEARCHED_SINCE = Reason("near-duplicates were found since")
AFTER_OTHERS = Reason("after the others")
NOT_WRITTEN = Reason("not written yet")


class RunResults:
    """The result files of a planned run, read once."""

    def __init__(
        self, path: str, run: Run, files: RunFiles, choice: Mapping[str, Any] | None = None
    ) -> None:
        """
        Args:
            choice: the content of chosen.json; None if it is missing, or the run is not tuned.
        """
        self.path, self.run, self.files, self.choice = path, run, files, choice
        self.trained = files.read_run()
        self.scored = files.read_metrics()

    @cached_property
    def missing(self) -> list[Path]:
        """The files of the training that are not there; the model is not looked for."""
        files = self.files
        if not self.trained:
            return [file for file in files.training_files if not file.is_file()]
        return [file for file in files.find_missing(self.trained) if file != files.model]

    @cached_property
    def missing_scores(self) -> list[Path]:
        """The files of the scoring that are not there; none if metrics.json is not there."""
        return self.files.find_missing(self.scored) if self.scored else []

    def why_retrain(self) -> Reason | None:
        """Why the training is not the planned one; None if it is, or if it is missing."""
        files = self.files
        if not self.trained:
            return damage_reason([files.run]) if files.run.exists() else None
        if self.trained["train_key"] != self.run.train_key:
            code = code_digests(*self.run.modules)
            # those of a tuned run are the chosen ones, and not the planned ones
            before = self.trained.get("planned", self.trained["settings"])
            now = self.run.settings
            changes = describe_changes(before, now, self.trained["code"], code)
            return Reason(changes or "the training's code")
        if self.choice and self.trained.get("chosen") != self.choice["chosen"]:
            before, now = {"chosen": self.trained.get("chosen")}, {"chosen": self.choice["chosen"]}
            return Reason(describe_changes(before, now, None, {}))
        is_ok = self.trained["status"] == OK
        if self.run.report_optimism and is_ok and not files.epoch_embeddings(self.trained):
            return Reason("report_optimism: it was trained without")
        if self.trained["status"] in DISK_STATUSES:  # the disk was too full for a verdict, too
            return failure_reason(self.trained)
        if damaged := files.find_damaged(self.trained, quick=True):
            return damage_reason(damaged)
        is_damaged = self.scored and self.scored["status"] == DAMAGED and self.is_of_training
        return damage_reason([files.embeddings]) if is_damaged else None

    def why_rescore(self) -> Reason | None:
        """Why the scores are not the planned ones; None if they are, or if they are missing."""
        files = self.files
        if not self.scored:
            return damage_reason([files.metrics]) if files.metrics.exists() else None
        if self.scored["eval_key"] == self.run.eval_key:
            if not self.is_of_training:
                return TRAINED_AGAIN
            damaged = files.find_damaged(self.scored, quick=True)
            return damage_reason(damaged) if damaged else None
        if self.scored["train_key"] != self.run.train_key:
            return TRAINED_AGAIN
        before = {"evaluation": self.scored["settings"]}
        now = {"evaluation": self.run.metric_settings}
        changes = describe_changes(
            before, now, self.scored["code"], code_digests(*self.run.metric_modules)
        )
        return Reason(changes or "the metrics' settings or code")

    @property
    def is_scored_unsearched(self) -> bool:
        """Whether the scores are there, and near-duplicates were not known when they were made."""
        scored = self.scored or {}
        return scored.get("status") == OK and not scored.get("near_duplicates")

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
            return failure_reason(failure) if is_planned else Reason("no result yet")
        return Reason(f"no {' and '.join(file.name for file in self.missing)}")

    def why_score(self) -> Reason:
        """Why there are no scores, or not all of their files."""
        if self.scored:
            return Reason(f"no {' and '.join(file.name for file in self.missing_scores)}")
        failure = self.files.read_failure()
        is_planned = failure.get("eval_key") == self.run.eval_key
        return failure_reason(failure) if is_planned else Reason("not scored yet")


def why_leaderboard(study: Study, results: str) -> Reason | None:
    """Why the leaderboard is not the planned one; None if it is.

    Args:
        results: the `results_digest` of the results that are there.
    """
    files = study.files
    made_of = read_made_of(files)
    if not made_of:
        return _why_unmade(files.table)
    if made_of["key"] == HAS_HOLES:
        return Reason(HAS_HOLES)
    if made_of["key"] != study.leaderboard_key:
        changed = describe_code(made_of["code"], code_digests(TABLES))
        return Reason(changed or "its runs, their results or its templates changed")
    return _why_made_again(made_of, results, files.leaderboard)


def why_gallery(study: Study, group: str, results: str) -> Reason | None:
    """Why the pictures of `group`, as dataset/backbone, are not the planned ones; None if they are.

    Args:
        results: the `results_digest` of its results that are there.
    """
    files = study.files.gallery(group)
    made_of = read_made_of(files)
    if not made_of:
        return _why_unmade(files.differences)
    if made_of["key"] != study.gallery_key(group):
        changed = describe_code(made_of["code"], code_digests(*PICTURES))
        return Reason(changed or "its runs, their results, `report` or its templates changed")
    if made_of["results"] == results and has_more_embeddings(study, group, made_of):
        return Reason("embeddings are there again")
    return _why_made_again(made_of, results, files.folder.parent)


def _why_unmade(page: Path) -> Reason:
    """Why `page` and what belongs to it are to be made, if their made.json is not there."""
    return Reason("it does not say what it was made from") if page.is_file() else NOT_WRITTEN


def _why_made_again(made_of: Mapping[str, Any], results: str, folder: Path) -> Reason | None:
    """Why the files of a made.json below `folder` are to be made from `results` again, if their key
    is the planned one; None if they are as they were made."""
    if made_of["results"] != results:
        return Reason("results changed")
    changed_files = find_changed_files(folder, made_of)
    return damage_reason(changed_files, "missing or damaged") if changed_files else None


def why_track(study: Study) -> Reason | None:
    """Why MLflow does not hold the planned results; None if it holds them, or was never written."""
    if not study.files.tracked.is_file():
        return None
    lines = (read_text_with_digest(study.files.tracked) or "").splitlines()
    if not lines:
        return damage_reason([study.files.tracked])
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
        return damage_reason([study.files.verdict])
    if success_message(study) not in lines:
        return Reason("the runs or the tracking changed")
    return None if leaderboard_line(study) in lines else Reason("the leaderboard changed")


def damage_reason(files: Sequence[Path], problem: str = "damaged") -> Reason:
    """These files are not what was written."""
    return Reason(f"{problem}: {', '.join(sorted(file.name for file in files))}")


def failure_reason(failure: Mapping[str, Any]) -> Reason:
    return Reason(f"failed: {failure['status']}", failure["error"]["message"])
