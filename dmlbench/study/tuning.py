"""The trials of a study: which settings of a loss are tried, and what follows from a choice.

All seeds of a data set, a backbone and a loss (a cell) share their trials, and what is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from dmlbench.study.run import Run, json_key
from dmlbench.study.search_space import FACTORS, search_points, search_space
from dmlbench.study.tuning_settings import Tuning
from dmlbench.utils.fingerprint import code_digest

VALIDATION = "dmlbench.tuning.validation"
"""The module that trains the folds of a trial and scores them."""
CHOICE = "dmlbench.tuning.choice"
"""The module that chooses a trial."""


@dataclass(frozen=True)
class Trial:
    """Settings of a cell that are tried: trained and validated on folds of the training classes."""

    run: Run
    """What each fold trains: with the options and the learning rates of this trial, and the seed of
    the tuning. It has no test."""
    number: int
    tuning: Tuning
    options: Mapping[str, float]
    """The searched values: options of the loss, and factors of the recipe. Those of trial 0 are of
    the study; an option that is null there is left out."""

    @property
    def cell(self) -> str:
        """`dataset/backbone/loss`."""
        return self.run.cell

    @property
    def path(self) -> str:
        """`dataset/backbone/loss/trial3`: its name in the study, and its folder."""
        return f"{self.cell}/trial{self.number}"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings that can change the scores of the trial."""
        return {**self.run.settings, "tuning": self.tuning.validation}

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that make its numbers, with what they import."""
        return (*self.run.modules, VALIDATION)

    @cached_property
    def key(self) -> str:
        """Digest of `settings` and of the code of `modules`. Nothing else repeats a trial."""
        return json_key(self.settings, code_digest(*self.modules))


def make_trials(run: Run) -> list[Trial]:
    """The trials of the cell of `run`, which is tuned. Trial 0 has the settings of the study.

    A space without dimensions has one trial, which chooses the number of epochs.
    """
    tuning = run.tuning
    assert tuning
    space = search_space(run, tuning)
    own = {name: run.loss_options[name] for name in (d.name for d in space) if name not in FACTORS}
    points = [
        {name: value for name, value in own.items() if value is not None}
        | {d.name: 1.0 for d in space if d.name in FACTORS}
    ]
    if space:
        points += search_points(space, tuning.seed, tuning.trials - 1)
    tried = replace(
        run,
        seed=tuning.seed,
        tuning=None,
        test_on=None,
        protocol="standard",
        report_optimism=False,
    )
    return [
        Trial(_with_values(tried, point), number, tuning, point)
        for number, point in enumerate(points)
    ]


def _with_values(run: Run, values: Mapping[str, float]) -> Run:
    """`run` with these searched values."""
    options = {name: value for name, value in values.items() if name not in FACTORS}
    recipe = {
        setting: getattr(run.recipe, setting) * values[name]
        for name, setting in FACTORS.items()
        if name in values
    }
    return replace(
        run,
        loss_options={**run.loss_options, **options},
        recipe=run.recipe.model_copy(update=recipe),
    )


def choice_key(trials: Sequence[Trial]) -> str:
    """Digest of the trials of a cell, and of the code that chooses one of them."""
    keys = [trial.key for trial in trials]
    return json_key(keys, trials[0].tuning.validation, code_digest(CHOICE))


def resolve(run: Run, chosen: Mapping[str, Any]) -> Run:
    """The final run that a choice makes of the tuned `run`.

    Args:
        chosen: the values of "chosen" in chosen.json.
    """
    return replace(
        run,
        loss_options={**run.loss_options, **chosen["loss_options"]},
        recipe=run.recipe.model_copy(update=chosen["recipe"]),
        # several models choose their own epochs, each on the block that it leaves out
        last_epoch=chosen["epochs"] if run.models == 1 else None,
        tuning=None,
    )
