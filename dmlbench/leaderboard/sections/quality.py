"""What speaks against the scores of the study: findings of single runs, and of runs together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dmlbench.evaluation.leaks import WITHOUT_LEAKS
from dmlbench.leaderboard.content import Cell, Row, Section, Where, first_line
from dmlbench.leaderboard.table import Panel, Result, panels
from dmlbench.study.result_shape import OK
from dmlbench.study.row_names import CONTROL, display_name, is_control, is_trained
from dmlbench.utils.text import some_of

TITLE = "Quality control"
FACTS = (
    "What speaks against scores of this study. Severity 0 is a note, 1 asks for a look, 2 gives a "
    "reason to doubt, and 3 says: do not use."
)
NOTHING = "Nothing was found."
OUTLIER_LEVEL = 0.01
"""A loss of which no seed is an outlier gets a finding as often as this, by chance."""
LEAST_SEEDS = 4
"""With fewer seeds, no one is called an outlier."""
MAX_PATHS = 3
"""Runs that a row names."""
MAX_MESSAGE = 600
"""Characters of a message."""
UNTRAINED = f"{CONTROL}untrained"
OF_SEEDS = ("low effective rank", "small spread")
"""Findings about the embeddings of single seeds; the others are about their data."""


class Remark(NamedTuple):
    """A finding, and what it is about."""

    severity: int
    name: str
    about: str
    message: str


def quality_sections(table: pd.DataFrame, results: Sequence[Result]) -> list[Section]:
    """The findings of all runs, the most severe first, and the shape of the embeddings.

    Args:
        table: the long table of `results`.
    """
    remarks = [*_of_runs(results), *_of_panels(table, results), *_of_origins(results)]
    remarks.sort(key=lambda remark: -remark.severity)
    rows = [
        Row(
            remark.name,
            [
                Cell(str(remark.severity), remark.severity),
                Cell(remark.about),
                Cell(first_line(remark.message, MAX_MESSAGE)),
            ],
        )
        for remark in remarks
    ]
    columns = ["severity", "where", "what was found"]
    return [
        Section(
            title=TITLE,
            facts=FACTS,
            columns=columns,
            rows=rows,
            notes=[] if rows else [NOTHING],
            names="finding",
            text_columns=("where", "what was found"),
        ),
        *_shapes(results),
    ]


def _of_runs(results: Sequence[Result]) -> Iterator[Remark]:
    """The findings in metrics.json. Runs with the same one share a row."""
    shared: dict[tuple[str, str, str], list[tuple[int, str, str]]] = {}
    for result in results:
        for finding in result.metrics.get("findings", []):
            is_of_seeds = finding["name"] in OF_SEEDS
            place = _place(result, with_loss=is_of_seeds)
            group = (finding["name"], place, "" if is_of_seeds else finding["message"])
            entry = (finding["severity"], finding["message"], _seed(result))
            shared.setdefault(group, []).append(entry)
    for (name, place, _), entries in shared.items():
        severity, message, _ = max(entries, key=lambda entry: entry[0])
        seeds = list(dict.fromkeys(seed for _, _, seed in entries))
        about = f"{place}, seed {some_of(seeds, MAX_PATHS)}" if name in OF_SEEDS else place
        yield Remark(severity, name, about, message)


def _place(result: Result, with_loss: bool) -> str:
    planned = result.planned
    other = "" if planned["tested_on"] == planned["dataset"] else f" → {planned['tested_on']}"
    parts = [planned["dataset"] + other, planned["backbone"]]
    return " · ".join([*parts, *([display_name(planned["loss"])] if with_loss else [])])


def _seed(result: Result) -> str:
    return str(result.planned["seed"])


def _of_panels(table: pd.DataFrame, results: Sequence[Result]) -> Iterator[Remark]:
    """What is found by comparing the scores of one data set, backbone and protocol."""
    for panel in panels(table):
        if panel.protocol and not panel.protocol.endswith(WITHOUT_LEAKS):
            yield from _below_untrained(panel)
            yield from _outliers(panel)
    yield from _left_out(results)


def _scores(panel: Panel) -> tuple[str, dict[str, pd.Series]]:
    """The metric that sorts a panel, and loss -> its value by seed."""
    metric = panel.main_metric
    rows = panel.rows[panel.rows["metric"] == metric]
    by_loss = {str(loss): runs.set_index("seed")["value"] for loss, runs in rows.groupby("loss")}
    return panel.metrics[metric], by_loss


def _below_untrained(panel: Panel) -> Iterator[Remark]:
    """Losses and embeddings that are worse than the untrained model."""
    metric, by_loss = _scores(panel)
    if UNTRAINED not in by_loss:
        return
    untrained = by_loss[UNTRAINED].mean()
    for loss, values in by_loss.items():
        if is_control(loss) or values.mean() >= untrained:
            continue
        below = int((values < untrained).sum())
        yield Remark(
            2 if below == len(values) else 1,
            "below untrained",
            f"{panel.title} · {display_name(loss)}",
            f"{metric} is {100 * values.mean():.2f} %, and that of the untrained model is "
            f"{100 * untrained:.2f} %; {below} of {len(values)} seeds are below",
        )


def _outliers(panel: Panel) -> Iterator[Remark]:
    """Seeds that are far from the others of their loss."""
    metric, by_loss = _scores(panel)
    for loss, values in by_loss.items():
        place = None if is_control(loss) else find_outlier(values.to_numpy())
        if place is not None:
            others = np.delete(values.to_numpy(), place)
            yield Remark(
                1,
                "outlying seed",
                f"{panel.title} · {display_name(loss)}",
                f"seed {values.index[place]}: {metric} is {100 * values.iloc[place]:.2f} %, and "
                f"{100 * others.min():.2f} to {100 * others.max():.2f} % with the others",
            )


def find_outlier(values: np.ndarray) -> int | None:
    """The place of the value that is an outlier; None if no one is.

    It is the value that is furthest from the mean of all, if Grubbs' test says so at the level
    OUTLIER_LEVEL: normal values have an outlier in that share of cases. Fewer than LEAST_SEEDS
    values have none. Source: Grubbs: Sample criteria for testing outlying observations, 1950.

    >>> find_outlier(np.array([0.41, 0.42, 0.40, 0.41, 0.12]))
    4
    >>> find_outlier(np.array([0.41, 0.42, 0.40, 0.41, 0.39])) is None
    True
    """
    count, spread = len(values), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    if count < LEAST_SEEDS or spread == 0:
        return None
    from scipy.stats import t

    distances = np.abs(values - values.mean()) / spread
    quantile = t.ppf(1 - OUTLIER_LEVEL / (2 * count), count - 2) ** 2
    limit = (count - 1) / np.sqrt(count) * np.sqrt(quantile / (count - 2 + quantile))
    return int(distances.argmax()) if distances.max() > limit else None


def _left_out(results: Sequence[Result]) -> Iterator[Remark]:
    """Losses whose mean leaves failed runs out."""
    cells: dict[str, list[Result]] = {}
    for result in results:
        cells.setdefault(_place(result, with_loss=True), []).append(result)
    for place, runs in cells.items():
        failed = [run for run in runs if run.metrics["status"] != OK]
        if failed and len(failed) < len(runs):
            statuses = dict.fromkeys(run.metrics["status"] for run in failed)
            seeds = some_of([_seed(run) for run in failed], MAX_PATHS)
            yield Remark(
                2,
                "failed seeds left out",
                place,
                f"{len(failed)} of {len(runs)} runs failed ({', '.join(statuses)}; seed {seeds}), "
                "and the mean is that of the others: it may flatter the loss",
            )


def _of_origins(results: Sequence[Result]) -> Iterator[Remark]:
    """What differs between trainings whose scores are compared."""
    comparisons: dict[str, list[Result]] = {}
    for result in results:
        if is_trained(result.planned["loss"]) and result.metrics["status"] == OK:
            comparisons.setdefault(_place(result, with_loss=False), []).append(result)
    for place, runs in comparisons.items():
        origins = [run.run["provenance"] for run in runs]
        for name, severity, text in _differences(origins):
            yield Remark(severity, name, place, text)


def _differences(origins: Sequence[dict[str, Any]]) -> Iterator[tuple[str, int, str]]:
    """(finding, severity, message) of each thing that differs between `origins`."""
    devices = _distinct(origin.get("device") for origin in origins)
    if len(devices) > 1:
        yield "mixed devices", 1, f"trained on {' / '.join(devices)}"
    packages = dict.fromkeys(name for origin in origins for name in origin.get("versions", {}))
    mixed = {name: _distinct(o.get("versions", {}).get(name) for o in origins) for name in packages}
    texts = [f"{name} {' / '.join(found)}" for name, found in mixed.items() if len(found) > 1]
    if texts:
        yield "mixed versions", 1, f"trained with {', '.join(texts)}"
    commits = _distinct(origin.get("git_commit") for origin in origins)
    if len(commits) > 1:
        message = "trained by several commits; their keys say that the code that counts is the same"
        yield "mixed commits", 0, f"{message}: {' / '.join(commits)}"


def _distinct(values: Any) -> list[str]:
    return [*dict.fromkeys("unknown" if value is None else str(value) for value in values)]


def _shapes(results: Sequence[Result]) -> Iterator[Section]:
    """How the embeddings fill their space: a section for each data set and backbone."""
    rows = [
        {
            "place": _place(result, with_loss=False),
            "where": Where(result.planned["dataset"], result.planned["backbone"]),
            "loss": str(result.planned["loss"]),
            **shape,
        }
        for result in results
        if (shape := result.metrics.get("embedding_shape"))
    ]
    for place, runs in pd.DataFrame(rows).groupby("place", sort=False) if rows else ():
        means = runs.drop(columns=["place", "where"]).groupby("loss", sort=False).mean()
        of_losses = {str(loss): _shape_row(str(loss), row) for loss, row in means.iterrows()}
        yield Section(
            title=f"Shape of the embeddings: {place}",
            facts="Mean over the seeds. The effective rank is the number of directions that the "
            "test embeddings use; the spread is their mean squared distance from their mean.",
            columns=["dimension", "effective rank", "spread"],
            rows=[row for loss, row in of_losses.items() if not is_control(loss)],
            controls=[row for loss, row in of_losses.items() if is_control(loss)],
            where=runs["where"].iloc[0],
        )


def _shape_row(loss: str, shape: pd.Series) -> Row:
    dim, rank, spread = shape["dim"], shape["effective_rank"], shape["spread"]
    return Row(
        loss,
        [Cell(f"{dim:.0f}", dim), Cell(f"{rank:.1f}", rank), Cell(f"{spread:.3g}", spread)],
    )
