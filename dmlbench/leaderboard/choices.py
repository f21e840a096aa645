"""What was chosen for each tuned cell of a study: a data set, a backbone and a loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dmlbench.leaderboard.sections.scores import metric_name
from dmlbench.leaderboard.table import Result
from dmlbench.study.result_files import StudyFiles

NAMES = ("dataset", "backbone", "loss")
"""What names a cell."""


@dataclass(frozen=True)
class Choice:
    """A tuned cell, its trials and what was chosen from them."""

    dataset: str
    backbone: str
    loss: str
    tuning: Mapping[str, Any]
    """How the study tunes it: `folds`, `metric`, `space` and more, as in the settings of a run."""
    chosen: Mapping[str, Any] | None
    """The values that were chosen; None if nothing was chosen yet, or if every trial failed."""
    score: float | None
    trials: Sequence[Mapping[str, Any]]
    """Number, status, options, score and costs of each trial."""
    spent: Mapping[str, Any]
    """`trials`, `steps` and `seconds`; empty if that is not known."""
    error: str | None
    """Why nothing was chosen."""

    @property
    def metric(self) -> str:
        """The name of the metric that chose a trial, as the page shows it."""
        return metric_name(self.tuning["metric"])

    @property
    def searched(self) -> list[str]:
        """Names of what was searched: `lr_factor`, then the options of the loss."""
        space = self.tuning.get("space", {})
        return [short_name(name) for name in sorted(space, key=lambda n: "recipe." not in n)]


def read_choices(results: Iterable[Result], files: StudyFiles) -> list[Choice]:
    """What was chosen for the cells of `results` that are tuned, in the order of the plan."""
    cells: dict[str, Mapping[str, Any]] = {}
    for result in results:
        planned = result.planned
        if planned["settings"].get("tuning"):
            cells.setdefault("/".join(planned[name] for name in NAMES), planned)
    return [_read_choice(cell, planned, files) for cell, planned in cells.items()]


def _read_choice(cell: str, planned: Mapping[str, Any], files: StudyFiles) -> Choice:
    content = files.choice(cell).read_chosen() or {}
    return Choice(
        dataset=planned["dataset"],
        backbone=planned["backbone"],
        loss=planned["loss"],
        tuning=planned["settings"]["tuning"],
        chosen=content.get("chosen"),
        score=content.get("score"),
        trials=content.get("trials", []),
        spent=content.get("spent", {}),
        error=(content.get("error") or {}).get("message"),
    )


def short_name(dimension: str) -> str:
    """The name of a dimension of the search space, as the page shows it.

    >>> short_name("recipe.lr_factor"), short_name("alpha")
    ('lr_factor', 'alpha')
    """
    return dimension.removeprefix("recipe.")


def by_panel(choices: Iterable[Choice]) -> dict[tuple[str, str], list[Choice]]:
    """(data set, backbone) -> its choices."""
    panels: dict[tuple[str, str], list[Choice]] = {}
    for choice in choices:
        panels.setdefault((choice.dataset, choice.backbone), []).append(choice)
    return panels
