"""Recall@1 against training time and against images seen: what does a better score cost?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from dmlbench.leaderboard.plots.figure import describe_seeds, text_figure
from dmlbench.leaderboard.plots.names import Points, label_nearby
from dmlbench.leaderboard.plots.stack import NO_RECALL, draw_panels, recall_panels
from dmlbench.leaderboard.statistics.means import summarise
from dmlbench.leaderboard.style import colour, marker
from dmlbench.leaderboard.table import Panel, Result, recalls
from dmlbench.study.row_names import is_trained

LOG_RATIO = 10
"""If the largest value is more than this many times the smallest, the axis is logarithmic."""
LARGE = 100
"""The unit of an axis is the first one of which the largest value is less than this many."""
Cell = tuple[str, str, str]
"""Data set, backbone and loss."""


class Unit(NamedTuple):
    """A unit of an axis."""

    name: str
    size: float


TIMES = (Unit("seconds", 1), Unit("minutes", 60), Unit("hours", 3600), Unit("days", 86_400))
COUNTS = (Unit("", 1), Unit("thousands", 1e3), Unit("millions", 1e6), Unit("billions", 1e9))


def time(table: pd.DataFrame, results: Sequence[Result] = ()) -> Iterator[Figure]:
    """Recall@1 (or Recall at the least K scored) in percent against the time of one training.

    Marks are means over the seeds, lines the 95 % intervals of the scores. There is a panel for
    each data set, backbone and protocol. If its losses saw different numbers of images, a second
    panel shows the score against that number: it compares them at equal data. Only losses that the
    study trained are shown.

    Args:
        table: the long table.
        results: those of `table`. Without them, the images seen are unknown.
    """
    trained = table[table["loss"].map(is_trained)]
    seen = images_seen(results)
    shown = [part for panel in recall_panels(trained) for part in _by_cost(panel, seen)]
    if not shown:
        yield text_figure(NO_RECALL)
    yield from draw_panels(shown, _points, label_nearby, _caption)


def images_seen(results: Sequence[Result]) -> dict[Cell, float]:
    """How many images one training of each cell has seen: its steps x the images of a batch, the
    mean over its seeds. Steps count on from one model of a run to the next.

    A cell is left out if none of its runs has recorded its steps.
    """
    seen: dict[Cell, list[int]] = {}
    for result in results:
        planned = result.planned
        cell = (planned["dataset"], planned["backbone"], planned["loss"])
        if result.run["status"] != "ok" or not is_trained(planned["loss"]):
            continue
        epochs = result.epochs
        if "step" in epochs and len(epochs):
            steps = int(epochs["step"].max())
            images = steps * result.run["settings"]["recipe"]["batch_size"]
            seen.setdefault(cell, []).append(images)
    return {cell: sum(images) / len(images) for cell, images in seen.items()}


def _by_cost(panel: Panel, seen: Mapping[Cell, float]) -> Iterator[Panel]:
    """`panel` with the costs of its runs: their seconds; and the images that they saw, if these
    differ. Without the latter, its rows say how many images all of them saw."""
    rows = panel.rows[panel.rows["metric"] == recalls(panel.rows)[0]]
    cells = [(panel.dataset, panel.backbone, str(loss)) for loss in rows["loss"]]
    images = [seen.get(cell, math.nan) for cell in cells]
    differ = len({*images}) > 1 and not any(map(math.isnan, images))
    same = images[0] if len({*images}) == 1 else math.nan
    yield panel._replace(rows=rows.assign(kind="time", cost=rows["train_seconds"], images=same))
    if differ:
        yield panel._replace(rows=rows.assign(kind="images", cost=images, images=math.nan))


def _caption(rows: pd.DataFrame) -> str:
    return (
        f"mark: mean over seeds, {describe_seeds(rows)}   |   line: 95 % interval of the mean "
        "score, Student's t over seeds   |   training without evaluation"
    )


def _points(ax: Axes, rows: pd.DataFrame) -> Points:
    costs = rows.groupby("loss", sort=False)["cost"].mean()
    scores = 100 * summarise(rows).droplevel("metric")
    of_images = rows["kind"].iloc[0] == "images"
    unit = fitting_unit(costs.max(), COUNTS if of_images else TIMES)
    points = {
        str(loss): (costs[loss] / unit.size, scores.loc[loss, "mean"]) for loss in costs.index
    }
    x, y = np.array([*points.values()]).reshape(-1, 2).T
    halves = scores.loc[[*points], "half_width"].to_numpy()
    tints = [colour(loss) for loss in points]
    ax.vlines(x, y - halves, y + halves, colors=tints, linewidths=0.8, alpha=0.4)
    for loss, point in points.items():
        ax.plot(
            *point, marker=marker(loss), color=colour(loss), markersize=6, markeredgecolor="white"
        )
    # Leave room for every seed, but not for a huge interval of two seeds.
    low, high = 100 * rows["value"].min(), 100 * rows["value"].max()
    room = 0.08 * (high - low) or 1
    metric = str(rows["metric"].iloc[0])
    ax.set(ylim=(low - room, high + room), ylabel=f"{metric.capitalize()} (%)")
    ax.set_xlabel(_images_label(unit) if of_images else _time_label(unit, rows["images"].iloc[0]))
    ax.margins(x=0.08)
    if x.max() > LOG_RATIO * x.min() > 0:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
    return points


def fitting_unit(largest: float, units: Sequence[Unit]) -> Unit:
    """The first of `units` in which `largest` is a short number, or the last.

    >>> fitting_unit(10, TIMES).name, fitting_unit(120, TIMES).name, fitting_unit(9000, TIMES).name
    ('seconds', 'minutes', 'hours')
    """
    return next((unit for unit in units if largest < LARGE * unit.size), units[-1])


def _time_label(unit: Unit, images: float) -> str:
    alike = "" if math.isnan(images) else f"; each saw {images:,.0f} images"
    return f"training time of a run ({unit.name}){alike}"


def _images_label(unit: Unit) -> str:
    return "images seen in a training" + f" ({unit.name})" * bool(unit.name)
