"""One trial as a job: what it reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from dmlbench.study.result_shape import OK, SETTLED
from dmlbench.study.study import Study
from dmlbench.study.tuning import Trial
from dmlbench.training.job import history_table, open_store
from dmlbench.training.resumable_job import (
    ResumableJob,
    open_device,
    run_job,
    training_imports,
)
from dmlbench.training.time_limit import StopRequests
from dmlbench.utils.files import replacing
from dmlbench.utils.fingerprint import code_digests

if TYPE_CHECKING:
    from dmlbench.tuning.validation import Fold

CURVE = ("fold", "epoch", "step", "loss", "lr", "score")
"""The columns of curve.parquet."""


class Output(NamedTuple):
    """What a trial has computed; a failed one may have a part of it."""

    folds: list[Fold]
    """Those that are finished."""
    unfinished: list[dict[str, Any]]
    """A row for each epoch of the fold that failed."""

    @property
    def histories(self) -> list[list[dict[str, Any]]]:
        """The history of each fold, of the one that failed too."""
        return [*(fold.history for fold in self.folds), *filter(None, [self.unfinished])]

    @property
    def history(self) -> list[dict[str, Any]]:
        return [row for history in self.histories for row in history]


def trial_job(study: Study, trial: Trial, stores: Path, max_minutes: float | None) -> int:
    """Train and validate the folds of `trial`, or continue, and write its result.

    Args:
        stores: the folder of the packed images.
        max_minutes: time limit of this job; None: no limit.

    Returns:
        The exit code.
    """
    return run_job(TrialJob(study, trial, stores), max_minutes)


class TrialJob(ResumableJob[Output]):
    """The trainings of the folds of a trial, and their scores."""

    def __init__(self, study: Study, trial: Trial, stores: Path) -> None:
        self.files = study.files.trial(trial.path)
        super().__init__(
            trial.path,
            trial.key,
            self.files.state,
            self.files.folder,
            self.files.log,
            trial.run.uses_model,
            study.settings.runs_per_gpu,
        )
        self.study = study
        self.trial = trial
        self.stores = stores
        self.folds: list[Fold] = []

    def is_finished(self) -> bool:
        result = self.files.read_trial()
        if result is None or result["key"] != self.trial.key:
            return False
        return result["status"] in SETTLED and self.files.is_whole(result)

    def begin(self) -> None:
        pass

    def compute(self, stop: StopRequests, origin: dict[str, Any]) -> Output:
        run = self.trial.run
        with training_imports(run.recipe, self.stores):
            from dmlbench.training.checkpoint import finishing_copies
            from dmlbench.tuning.validation import run_trial

        device = open_device(run.recipe, run.uses_model, origin)
        store = open_store(self.stores, run)
        with finishing_copies():
            for fold in run_trial(self.trial, store, device, self.state, stop):
                self.folds.append(fold)
        return Output(self.folds, [])

    def failed(self, history: list[dict[str, Any]]) -> Output:
        return Output(self.folds, history)

    def write(self, result: Mapping[str, Any], output: Output, origin: Mapping[str, Any]) -> None:
        trial = self.trial
        with replacing(self.files.curve) as temporary:
            pq.write_table(history_table(curve(output), CURVE), temporary)
        is_ok = result["status"] == OK
        scores = mean_scores(output.folds) if is_ok else {}
        best = best_epoch(scores) if is_ok else None
        self.files.write_trial(
            {
                "study": self.study.name,
                "dataset": trial.run.dataset,
                "backbone": trial.run.backbone,
                "loss": trial.run.loss,
                "trial": trial.number,
                "key": trial.key,
                **result,
                "settings": trial.settings,
                "options": dict(trial.options),
                "code": code_digests(*trial.modules),
                "steps": sum(history[-1]["step"] for history in output.histories),
                "epochs": [*scores],
                "scores": [*scores.values()],
                "best_epoch": best,
                "best_score": scores[best] if best else None,
                "folds": [_describe(fold) for fold in output.folds],
                "provenance": origin,
            }
        )


def curve(output: Output) -> list[dict[str, Any]]:
    """The rows of curve.parquet: one for each fold and epoch; an epoch that was not validated has
    the score NaN."""
    return [
        {name: {"fold": fold, **row}[name] for name in CURVE}
        for fold, history in enumerate(output.histories)
        for row in history
    ]


def mean_scores(folds: list[Fold]) -> dict[int, float]:
    """Epoch that was validated -> mean of its scores over the folds."""
    scores = np.array([[row["score"] for row in fold.history] for fold in folds])
    epochs = [row["epoch"] for row in folds[0].history]
    return {
        epoch: score
        for epoch, score in zip(epochs, scores.mean(axis=0).tolist(), strict=True)
        if not np.isnan(score)
    }


def best_epoch(scores: Mapping[int, float]) -> int:
    """The epoch with the best score; the first one of equals.

    >>> best_epoch({1: 0.2, 2: 0.4, 3: 0.4})
    2
    """
    return max(scores, key=lambda epoch: (scores[epoch], -epoch))


def _describe(fold: Fold) -> dict[str, Any]:
    """Classes, images and scores of a fold, for trial.json."""
    return {
        "train_classes": fold.classes[0],
        "validation_classes": fold.classes[1],
        "train_images": fold.images[0],
        "validation_images": fold.images[1],
        "scores": [row["score"] for row in fold.history if not np.isnan(row["score"])],
    }
