"""The scores: one section for each data set, backbone and protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from dmlbench.leaderboard.content import (
    Cell,
    Failure,
    Row,
    Section,
    duration_cell,
    format_settings,
    score_cell,
    shared_settings,
    speed_cell,
)
from dmlbench.leaderboard.statistics import summarise
from dmlbench.leaderboard.table import Panel, Result, panels, recalls
from dmlbench.study.row_names import display_name, is_control

RETRIEVAL = {
    "map@r": "MAP@R",
    "r_precision": "R-Precision",
    "map": "MAP",
    "mrr": "MRR",
    "nmi": "NMI",
    "ami": "AMI",
}
"""Names of the metrics of retrieval and clustering. The first one sorts the table."""
VERIFICATION = {"verification_accuracy": "Verification accuracy"}
"""Names of the metrics where pairs are verified. The first one sorts the table."""
ALWAYS_SHOWN = ("map@r", "r_precision", "nmi")
"""Columns that a table of retrieval has even if nothing was scored."""


def score_sections(
    table: pd.DataFrame,
    results: Sequence[Result],
    recipes: Mapping[str, Mapping[str, Any]],
    recipe: Mapping[str, Any],
) -> Iterator[Section]:
    """The section of each panel of the long `table`.

    Args:
        recipes: path of each trained run -> its recipe.
        recipe: what all recipes share.
    """
    for panel in panels(table):
        yield _score_section(panel, results, recipes, recipe)


def _score_section(
    panel: Panel,
    results: Sequence[Result],
    recipes: Mapping[str, Mapping[str, Any]],
    recipe: Mapping[str, Any],
) -> Section:
    """The section of `panel`. `recipes` are by path; `recipe` is what they all share."""
    runs = [result for result in results if _belongs_to(result, panel)]
    paths = [run.planned["path"] for run in runs]
    shared = shared_settings(recipes[path] for path in paths if path in recipes)
    only_here = {key: value for key, value in shared.items() if key not in recipe}
    scored = set(panel.rows["metric"].dropna())
    names = VERIFICATION if VERIFICATION.keys() & scored else RETRIEVAL
    sorted_by = next(iter(names))
    levels = _level_names(runs[0])
    metrics = [
        *recalls(panel.rows),
        *(metric for metric in levels if metric in scored),
        *(metric for metric in names if metric in scored or metric in ALWAYS_SHOWN),
    ]
    columns = [metric_name(metric, names | levels) for metric in metrics]
    summary = summarise(panel.rows)
    control = panel.rows["loss"].map(is_control)
    return Section(
        title=panel.title,
        facts=_facts(panel.rows, names[sorted_by], only_here),
        columns=[*columns, "seeds", "train time", "images/s"],
        rows=_score_rows(panel.rows[~control], metrics, summary, sorted_by),
        controls=_score_rows(panel.rows[control], metrics, summary, sorted_by),
        failures=_failures(panel.rows),
    )


def _belongs_to(result: Result, panel: Panel) -> bool:
    names = (result.planned["dataset"], result.planned["backbone"])
    return names == (panel.dataset, panel.backbone)


def metric_name(metric: str, names: Mapping[str, str] = RETRIEVAL) -> str:
    return names.get(metric, metric.capitalize())


def _facts(rows: pd.DataFrame, sorted_by: str, recipe: Mapping[str, Any]) -> str:
    facts = [f"Sorted by mean {sorted_by}"]
    if queries := sorted(set(rows.loc[rows["metric"] == "queries", "value"])):
        facts.append(f"{' or '.join(f'{n:,.0f}' for n in queries)} queries")
    if recipe:
        facts.append(f"recipe here: {format_settings(recipe)}")
    return "; ".join(facts) + "."


def _score_rows(
    rows: pd.DataFrame, metrics: Sequence[str], summary: pd.DataFrame, sorted_by: str
) -> list[Row]:
    """A row for each loss, the best first. A loss without any score is a row of holes."""
    means: dict[Any, float] = summary["mean"].to_dict()
    halves: dict[Any, float] = summary["half_width"].to_dict()
    losses = {str(loss): runs for loss, runs in rows.groupby("loss")}
    table = []
    for loss in sorted(losses, key=lambda loss: (-means.get((loss, sorted_by), -1), loss)):
        runs = losses[loss].drop_duplicates("seed")
        done = runs[runs["status"] == "ok"]
        seeds = f"{len(done)}" + (f" of {len(runs)}" if len(done) < len(runs) else "")
        cells = [
            *(score_cell(means.get((loss, m)), halves.get((loss, m))) for m in metrics),
            Cell(seeds, len(done)),
            duration_cell(done["train_seconds"].mean()),
            speed_cell(done["images_per_second"].mean()),
        ]
        table.append(Row(loss, cells))
    return table


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
            _first_line(str(error)),
        )
        for (loss, status, error), group in failed.groupby(["loss", "status", "error"], sort=False)
    ]


def _first_line(message: str, longest: int = 200) -> str:
    line = (message.splitlines() or [""])[0]
    return line if len(line) <= longest else line[:longest] + "…"
