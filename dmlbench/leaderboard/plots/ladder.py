"""The taxonomy ladder: how the scores fall as the training classes get farther from the test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from dmlbench.leaderboard.ladders import Ladder, read_ladders
from dmlbench.leaderboard.plots.figure import describe_seeds, text_figure
from dmlbench.leaderboard.plots.names import Points, label_at_right
from dmlbench.leaderboard.plots.stack import draw_panels
from dmlbench.leaderboard.statistics.means import summarise
from dmlbench.leaderboard.style import colour, marker
from dmlbench.leaderboard.table import Panel, Result
from dmlbench.study.row_names import is_control

NO_LADDER = "no two rungs have a score"
SPREAD = 0.12
"""The losses stand beside each other at a rung: over this part of the way to the next one."""


def ladder(table: pd.DataFrame, results: Sequence[Result]) -> Iterator[Figure]:
    """MAP@R and Recall@1 in percent at each rung, without controls, whose scores are all the same.

    Marks are means over the seeds of a loss with their 95 % intervals, thin lines are single seeds.
    There are two panels for each ladder, backbone and protocol.

    Args:
        table: the long table of `results`.
    """
    shown = [panel for part in read_ladders(table, results) for panel in _panels(part)]
    if not shown:
        yield text_figure(NO_LADDER)
    yield from draw_panels(shown, _curves, label_at_right, _caption)


def _panels(of: Ladder) -> Iterator[Panel]:
    """A panel for each metric of a ladder that a loss was scored by. Its rows have three columns
    more: `rung` from 0, `rung_name`, and `score`, the name of the metric."""
    first = of.rungs[0][1]
    for metric in of.metrics:
        parts = []
        for place, (rung, panel) in enumerate(of.rungs):
            rows = panel.rows[panel.rows["metric"] == metric]
            rows = rows[~rows["loss"].map(is_control)]
            parts.append(rows.assign(rung=place, rung_name=rung.name))
        rows = pd.concat(parts).dropna(subset="value")
        if len(rows):
            score = first.metrics.get(metric, metric.capitalize())
            name = of.rungs[0][0].ladder
            protocol = f"{first.protocol} · {score}"
            yield Panel(name, name, first.backbone, protocol, rows.assign(score=score))


def _caption(rows: pd.DataFrame) -> str:
    return (
        f"mark: mean over seeds, {describe_seeds(rows)}   |   vertical: 95 % interval of the mean, "
        "Student's t over seeds   |   thin: single seeds   |   names: as the curves end   |   all "
        "rungs have the same test classes, and as many training classes"
    )


def _curves(ax: Axes, rows: pd.DataFrame) -> Points:
    names = rows.drop_duplicates("rung").set_index("rung")["rung_name"].sort_index()
    losses = [*map(str, rows["loss"].unique())]
    ends = {}
    for place, loss in enumerate(losses):
        shift = SPREAD * (place / max(len(losses) - 1, 1) - 0.5)
        of_loss = rows[rows["loss"] == loss]
        seeds = 100 * of_loss.pivot(index="seed", columns="rung", values="value")
        lines = [
            np.column_stack([seed.dropna().index + shift, seed.dropna()])
            for _, seed in seeds.iterrows()
        ]
        ax.add_collection(LineCollection(lines, colors=colour(loss), linewidths=0.5, alpha=0.35))
        by_rung = of_loss.assign(metric=of_loss["rung"])  # a mean for each rung
        means = summarise(by_rung).loc[loss].sort_index()
        x, y = means.index.to_numpy(dtype=float) + shift, 100 * means["mean"].to_numpy()
        (line,) = ax.plot(x, y, color=colour(loss), linewidth=1.2, alpha=0.9)
        line.set(marker=marker(loss), markersize=4.5, markeredgecolor="white", markeredgewidth=0.4)
        half = 100 * means["half_width"].fillna(0).to_numpy()
        ax.vlines(x, y - half, y + half, color=colour(loss), linewidth=1)
        ends[loss] = (float(x[-1]), float(y[-1]))
    ax.set(xlabel="unseen in training", ylabel=f"{rows['score'].iloc[0]} (%)")
    ax.set_xticks([*names.index], [*names])
    ax.autoscale_view()
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, -2), min(high, 102))  # the interval of few seeds may go on outside
    return ends
