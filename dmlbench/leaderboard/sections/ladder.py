"""The taxonomy ladder: the scores of each loss as its training classes get farther from those of
the test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import Any

import pandas as pd

from dmlbench.leaderboard.content import Cell, Row, Section, Where, score_cell
from dmlbench.leaderboard.ladders import Ladder, read_ladders
from dmlbench.leaderboard.sections.scores import metric_name
from dmlbench.leaderboard.table import Result
from dmlbench.study.result_shape import OK
from dmlbench.study.row_names import is_control, is_trained

TITLE = "Taxonomy ladder"
FALL, UNSEEN = "fall", "unseen"
SAME = (
    "The same on each rung: the test classes, the number of training classes and the seeds. What "
    "changes is which classes train: the nearest ones that a rung allows, and farther ones until "
    "they are enough."
)
SCORES = (
    "In percent: the mean over seeds ± half the width of its 95 % interval. {}: how much lower the "
    "last rung is than the first one, in percentage points, seed by seed (paired, Student's t). "
    "Sorted by {}."
)
ONE_DRAW = (
    "A rung is one draw of classes: the intervals are those of other seeds, and not of other test "
    "classes. The rungs share their test images, so they count as one data set where losses are "
    "ranked over several."
)


def ladder_sections(table: pd.DataFrame, results: Sequence[Result]) -> Iterator[Section]:
    """A section for each ladder, backbone and protocol of the long `table` of `results`."""
    for ladder in read_ladders(table, results):
        yield _section(ladder, results)


def _section(ladder: Ladder, results: Sequence[Result]) -> Section:
    first = ladder.rungs[0][1]
    run = next(result for result in results if first.holds(result))
    levels = run.planned["settings"]["dataset"]["facts"]["levels"]
    columns, places = [], []
    for metric in ladder.metrics:
        name = metric_name(metric, first.metrics)
        for rung, panel in ladder.rungs:
            columns.append(f"{name}, {rung.name} {UNSEEN}")
            places.append(Where.of(panel))
        columns.append(f"{name}, {FALL}")
        places.append(Where("", first.backbone, first.protocol or ""))
    last = columns[len(ladder.rungs) - 1]
    main, ranked_by = ladder.metrics[0], ladder.means[-1]["mean"]

    def order(loss: str) -> tuple[float, str]:
        return -ranked_by.get((loss, main), -inf), loss

    rows = [Row(loss, _cells(ladder, loss)) for loss in sorted(ladder.losses, key=order)]
    return Section(
        title=f"{TITLE}: {ladder.title}",
        facts=" ".join([SAME, *_rungs(ladder, levels), SCORES.format(FALL, last)]),
        columns=columns,
        rows=[row for row in rows if not is_control(row.name)],
        controls=[row for row in rows if is_control(row.name)],
        notes=[*_differences(ladder, results), ONE_DRAW],
        scores=(last, *(column for column in columns if column != last)),
        where=Where("", first.backbone, first.protocol or ""),
        column_where=tuple(places),
    )


def _rungs(ladder: Ladder, levels: Sequence[str]) -> Iterator[str]:
    """What each rung trains on; `levels` are the names of the levels, the nearest first."""
    for rung, panel in ladder.rungs:
        unseen = "no test class" if not rung.number else f"no class of its {rung.name}"
        nearest = levels[rung.number : rung.number + 1] if rung.number < 2 else []
        others = "".join(f", but other classes of its {level} do" for level in nearest)
        yield f"{rung.name} {UNSEEN} ({panel.dataset}): {unseen} trains{others}."


def _cells(ladder: Ladder, loss: str) -> list[Cell]:
    cells = []
    for metric in ladder.metrics:
        cells += [_cell(means, loss, metric) for means in [*ladder.means, ladder.falls]]
    return cells


def _cell(means: pd.DataFrame, loss: str, metric: str) -> Cell:
    found = means.reindex([(loss, metric)])
    return score_cell(found["mean"].iloc[0], found["half_width"].iloc[0])


def _differences(ladder: Ladder, results: Sequence[Result]) -> Iterator[str]:
    """What differs between the rungs beside the classes that train."""
    rungs = [[r for r in results if panel.holds(r)] for _, panel in ladder.rungs]
    recipes: dict[str, list[Any]] = {}
    for result in (result for of_rung in rungs for result in of_rung):
        recipe = result.planned["settings"].get("recipe")
        recipes.setdefault(result.planned["loss"], []).append(recipe)
    if any(recipe != seen[0] for seen in recipes.values() for recipe in seen):
        yield "The recipes of the rungs differ too, so not only the classes make the difference."
    steps = [_steps(of_rung) for of_rung in rungs]
    if len({*steps}) > 1:
        counts = ", ".join(
            f"{rung.name} {'unknown' if count is None else f'{count:,}'}"
            for (rung, _), count in zip(ladder.rungs, steps, strict=True)
        )
        yield f"Training steps: {counts}. As many classes have not as many images."


def _steps(results: Sequence[Result]) -> int | None:
    """The steps of the first run that was trained to its end."""
    for result in results:
        if result.metrics["status"] == OK and is_trained(result.planned["loss"]):
            return int(result.epochs["step"].max()) if "step" in result.epochs else None
    return None
