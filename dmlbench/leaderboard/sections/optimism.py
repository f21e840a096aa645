"""What a table gains that chooses the epoch or the seed by the test score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from dmlbench.leaderboard.content import HOLE, Cell, Row, Section, Where, score_cell
from dmlbench.leaderboard.sections.scores import metric_name
from dmlbench.leaderboard.table import RETRIEVAL, VERIFICATION, Panel, Result

TITLE = "Optimism gap"
FACTS = (
    "How many points a table would gain that chooses by the test score, as many papers do. These "
    "are no results of this study: nothing here is chosen by a test score."
)
NOTES = [
    "The first column of a metric is the reported mean over the seeds after the last epoch. Best "
    "epoch: the mean gain if each seed took the epoch with the best test score. Best seed: the "
    "gain if the best seed alone were shown. Both: the best seed at its best epoch.",
    "The embeddings after each epoch are stored with fewer digits (float16), so gains below 0.05 "
    "points mean nothing.",
]
NAMES = RETRIEVAL | VERIFICATION


def optimism_sections(results: Sequence[Result]) -> list[Section]:
    """The gains by metric, with a section for each data set, backbone and protocol.

    There is none if the study does not report its optimism.
    """
    rows = pd.DataFrame([*_gains(results)])
    if not len(rows):
        return []
    sections = []
    for names, runs in rows.groupby(["dataset", "tested_on", "backbone", "protocol"], sort=False):
        metrics = [*runs["metric"].unique()]
        columns = [
            name
            for metric in map(_name, metrics)
            for name in (metric, f"{metric}: best epoch", f"{metric}: best seed", f"{metric}: both")
        ]
        losses = [
            Row(str(loss), [cell for metric in metrics for cell in _cells(scores, metric)])
            for loss, scores in runs.groupby("loss", sort=False)
        ]
        losses.sort(key=lambda row: (-(row.cells[0].value or 0.0), row.name))
        dataset, tested_on, backbone, protocol = map(str, names)
        panel = Panel(dataset, tested_on, backbone, protocol, runs)
        section = Section(f"{TITLE}: {panel.title}", FACTS, columns, losses, notes=NOTES)
        sections.append(replace(section, where=Where.of(panel)))
    return sections


def _name(metric: str) -> str:
    return metric_name(metric, NAMES)


def _gains(results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """The reported score of each run, protocol and metric, and the gain of its best epoch."""
    names = ("dataset", "tested_on", "backbone", "loss", "seed")
    for result in results:
        planned = {name: result.planned[name] for name in names}
        reported = {
            (row["protocol"], row["metric"]): row["value"] for row in result.metrics["metrics"]
        }
        for row in result.metrics.get("optimism", []):
            place = row["protocol"], row["metric"]
            yield planned | {
                "protocol": row["protocol"],
                "metric": row["metric"],
                "value": reported[place],
                "gap": row["gap"],
            }


def _cells(scores: pd.DataFrame, metric: str) -> list[Cell]:
    """The reported mean of a loss, and what choosing by the test score would add to it."""
    of_metric = scores[scores["metric"] == metric]
    values, gaps = (of_metric[name].to_numpy(float) for name in ("value", "gap"))
    if not len(values):
        return [Cell(HOLE)] * 4
    mean = values.mean()
    gains = gaps.mean(), values.max() - mean, (values + gaps).max() - mean
    return [score_cell(mean, np.nan), *map(_gain_cell, gains)]


def _gain_cell(gain: float) -> Cell:
    """A difference of fractions, in points."""
    return Cell(f"{100 * gain:+.2f}", gain)
