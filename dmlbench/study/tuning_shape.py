"""The shape of trial.json and chosen.json: what every reader may rely on."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from dmlbench.study.result_shape import (
    OK,
    Amount,
    FileShape,
    Name,
    Outcome,
    ProvenanceRecord,
    Strict,
    check_shape,
)

MAKES_NUMBERS = False

Count = Annotated[int, Field(ge=0)]
Epoch = Annotated[int, Field(ge=1)]
Score = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class _Trial(Outcome):
    key: Name
    trial: Count
    settings: dict[str, Any]
    options: dict[Name, Number]
    code: dict[str, str]
    steps: Count
    epochs: list[Epoch]
    scores: list[Score]
    best_epoch: Epoch | None
    best_score: Score | None
    folds: list[dict[str, Any]]
    files: dict[str, FileShape]
    provenance: ProvenanceRecord

    @model_validator(mode="after")
    def _has_scores_if_it_succeeded(self) -> _Trial:
        if len(self.epochs) != len(self.scores):
            raise ValueError("each validated epoch has one score")
        has_best = self.best_epoch is not None and self.best_score is not None
        if (self.status == OK) != bool(self.scores) or (self.status == OK) != has_best:
            raise ValueError("a trial that succeeded has scores, and a failed one has none")
        return self


class _ChosenValues(Strict):
    trial: Count
    loss_options: dict[Name, Any]
    recipe: dict[Name, Number]
    epochs: Epoch


class _TrialRecord(Strict):
    trial: Count
    status: Name
    options: dict[Name, Number]
    best_epoch: Epoch | None
    best_score: Score | None
    steps: Count
    wall_seconds: Amount


class _Spent(Strict):
    trials: Count
    steps: Count
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Chosen(Outcome):
    key: Name
    chosen: _ChosenValues | None
    score: Score | None
    trials: list[_TrialRecord]
    spent: _Spent
    made_from: dict[Name, Digest]

    @model_validator(mode="after")
    def _has_a_choice_if_it_succeeded(self) -> _Chosen:
        if (self.status == OK) != (self.chosen is not None):
            raise ValueError("a choice that succeeded has values, and a failed one has none")
        return self


def check_trial(content: dict[str, Any]) -> None:
    """Check the content of trial.json.

    Raises:
        ValueError: with the first key that is wrong, and what is wrong with it.
    """
    check_shape(_Trial, content)


def check_chosen(content: dict[str, Any]) -> None:
    """Check the content of chosen.json; see `check_trial`."""
    check_shape(_Chosen, content)
