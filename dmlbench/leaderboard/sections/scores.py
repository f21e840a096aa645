"""The scores: one section for each data set, backbone and protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import nan
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd

from dmlbench.leaderboard.content import (
    HOLE,
    Cell,
    Failure,
    Row,
    Section,
    Where,
    cell_file,
    duration_cell,
    first_line,
    format_settings,
    rank_cell,
    score_cell,
    shared_settings,
    speed_cell,
)
from dmlbench.leaderboard.statistics.means import summarise
from dmlbench.leaderboard.statistics.panel import PanelStatistics
from dmlbench.leaderboard.table import RETRIEVAL, Panel, Result, panels, recalls
from dmlbench.study.row_names import CONTROL, display_name, is_control

ALWAYS_SHOWN = ("map@r", "r_precision", "nmi")
"""Columns that a table of retrieval has even if nothing was scored."""
WAY = "untrained → oracle"
"""The column that tells how far a loss gets from the untrained model to the labels themselves."""


class Limits(NamedTuple):
    """Mean scores of two controls by the metric that sorts a table."""

    untrained: float
    oracle: float


def score_sections(
    table: pd.DataFrame,
    results: Sequence[Result],
    recipes: Mapping[str, Mapping[str, Any]],
    recipe: Mapping[str, Any],
    statistics: Mapping[str, PanelStatistics],
) -> Iterator[Section]:
    """The section of each panel of the long `table`.

    Args:
        recipes: path of each trained run -> its recipe.
        recipe: what all recipes share.
        statistics: title of a panel -> its statistics, which give the ranks.
    """
    for panel in panels(table):
        yield _score_section(panel, results, recipes, recipe, statistics.get(panel.title))


def _score_section(
    panel: Panel,
    results: Sequence[Result],
    recipes: Mapping[str, Mapping[str, Any]],
    recipe: Mapping[str, Any],
    statistics: PanelStatistics | None,
) -> Section:
    """The section of `panel`. `recipes` are by path; `recipe` is what they all share."""
    runs = [result for result in results if panel.holds(result)]
    paths = [run.planned["path"] for run in runs]
    shared = shared_settings(recipes[path] for path in paths if path in recipes)
    only_here = {key: value for key, value in shared.items() if key not in recipe}
    sorted_by = panel.main_metric
    metrics = shown_metrics(panel, runs[0])
    columns = [*metrics.values()]
    summary = summarise(panel.rows)
    control = panel.rows["loss"].map(is_control)
    limits = _limits(summary, sorted_by)
    ranks = statistics.ranks if statistics else {}
    ranked_by = panel.metrics[sorted_by]
    scores = sorted(columns, key=lambda name: name != ranked_by)
    columns = [*(["rank"] if ranks else []), *columns, *([WAY] if limits else [])]
    return Section(
        title=panel.title,
        facts=_facts(panel.rows, ranked_by, only_here, statistics),
        columns=[*columns, "seeds", "train time", "images/s"],
        rows=_score_rows(panel, ~control, metrics, summary, sorted_by, limits, ranks),
        controls=_score_rows(panel, control, metrics, summary, sorted_by, limits, ranks),
        failures=_failures(panel.rows),
        scores=tuple(scores),
        where=Where.of(panel),
    )


def shown_metrics(panel: Panel, run: Result) -> dict[str, str]:
    """The metrics of `panel` that have a column -> their names on the page.

    Args:
        run: a run of the panel; its data set names the levels of classes.
    """
    scored = set(panel.rows["metric"].dropna())
    names, levels = panel.metrics, _level_names(run)
    metrics = [
        *recalls(panel.rows),
        *(metric for metric in levels if metric in scored),
        *(metric for metric in names if metric in scored or metric in ALWAYS_SHOWN),
    ]
    return {metric: metric_name(metric, names | levels) for metric in metrics}


def metric_name(metric: str, names: Mapping[str, str] = RETRIEVAL) -> str:
    return names.get(metric, metric.capitalize())


def _facts(
    rows: pd.DataFrame,
    sorted_by: str,
    recipe: Mapping[str, Any],
    statistics: PanelStatistics | None,
) -> str:
    facts = [f"Sorted by mean {sorted_by}"]
    if statistics and statistics.losses and statistics.no_ranks:
        facts.append(f"no rank: {statistics.no_ranks}")
    if queries := sorted(set(rows.loc[rows["metric"] == "queries", "value"])):
        facts.append(f"{' or '.join(f'{n:,.0f}' for n in queries)} queries")
    if recipe:
        facts.append(f"recipe here: {format_settings(recipe)}")
    return "; ".join(facts) + "."


def _limits(summary: pd.DataFrame, metric: str) -> Limits | None:
    """The scores of the two controls; None if one is missing, or if there is no way between."""
    means: dict[Any, float] = summary["mean"].to_dict()
    untrained, oracle = (means.get((CONTROL + name, metric)) for name in Limits._fields)
    if untrained is None or oracle is None or untrained == oracle:
        return None
    return Limits(untrained, oracle)


def _score_rows(
    panel: Panel,
    is_row: pd.Series,
    metrics: Iterable[str],
    summary: pd.DataFrame,
    sorted_by: str,
    limits: Limits | None,
    ranks: Mapping[str, tuple[int, int]],
) -> list[Row]:
    """A row for each loss in the rows of `panel` where `is_row`, the best first.

    A loss without any score is a row of holes.
    """
    means: dict[Any, float] = summary["mean"].to_dict()
    halves: dict[Any, float] = summary["half_width"].to_dict()
    losses = {str(loss): runs for loss, runs in panel.rows[is_row].groupby("loss")}
    table = []
    for loss in sorted(losses, key=lambda loss: (-means.get((loss, sorted_by), -1), loss)):
        runs = losses[loss].drop_duplicates("seed")
        done = runs[runs["status"] == "ok"]
        seeds = f"{len(done)}" + (f" of {len(runs)}" if len(done) < len(runs) else "")
        cells = [
            *([rank_cell(ranks.get(loss))] if ranks else []),
            *(score_cell(means.get((loss, m)), halves.get((loss, m), nan)) for m in metrics),
            *([_way_cell(means.get((loss, sorted_by)), limits)] if limits else []),
            Cell(seeds, len(done)),
            duration_cell(done["train_seconds"].mean()),
            speed_cell(done["images_per_second"].mean()),
        ]
        page = cell_file(f"{panel.dataset}/{panel.backbone}/{loss}")
        is_first = loss in ranks and ranks[loss][0] == 1
        table.append(Row(loss, cells, quote(page), is_first))
    return table


def _way_cell(mean: float | None, limits: Limits) -> Cell:
    """The part of the way from the untrained model to the oracle, in percent. It is below 0 for a
    loss that is worse than the untrained model."""
    if mean is None:
        return Cell(HOLE)
    part = (mean - limits.untrained) / (limits.oracle - limits.untrained)
    return Cell(f"{100 * part:.1f} %", part)


def _level_names(result: Result) -> dict[str, str]:
    """Metric of recall by level -> its name on the page, from the data set of the test."""
    settings = result.run["settings"]
    names = settings.get("test", settings["dataset"])["facts"]["levels"]
    return {f"recall@1 level_{number}": f"Recall@1 {name}" for number, name in enumerate(names, 1)}


def _failures(rows: pd.DataFrame) -> list[Failure]:
    """The failed runs; those with equal reasons together."""
    failed = rows[rows["status"] != "ok"].fillna({"error": "no message"})
    return [
        Failure(
            f"{display_name(str(loss))}, seed {', '.join(map(str, group['seed']))}",
            str(status),
            first_line(str(error)),
        )
        for (loss, status, error), group in failed.groupby(["loss", "status", "error"], sort=False)
    ]
