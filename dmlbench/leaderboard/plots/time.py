"""Recall@1 against training time: what a better score costs."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from dmlbench.leaderboard.plots.figure import Points, name_near, stack
from dmlbench.leaderboard.statistics import summarise
from dmlbench.leaderboard.style import colour, marker
from dmlbench.leaderboard.table import is_trained, recalls

WIDE = 10  # the ratio of times from which their axis is logarithmic


def time(table: pd.DataFrame) -> Figure:
    """Recall@1 - or at the least K scored - against the minutes of one training: mean over the
    seeds, and the score's 95 % interval. A panel a data set, backbone and protocol; no row that
    needs no training."""
    how = "mark: mean over seeds   |   line: 95 % interval of the score"
    return stack(table[table["loss"].map(is_trained)], _points, name_near, how)


def _points(ax: Axes, rows: pd.DataFrame) -> Points:
    metric = recalls(rows)[0]
    rows = rows[rows["metric"] == metric]
    minutes = rows.groupby("loss", sort=False)["train_seconds"].mean() / 60
    scores = 100 * summarise(rows).droplevel("metric")
    points = {loss: (minutes[loss], scores.loc[loss, "mean"]) for loss in minutes.index}
    for loss, (x, y) in points.items():
        half = scores.loc[loss, "half_width"]
        ax.errorbar(x, y, half, fmt="none", ecolor=colour(loss), elinewidth=0.8, alpha=0.4)
        ax.plot(
            x, y, marker=marker(loss), color=colour(loss), markersize=6, markeredgecolor="white"
        )
    # Room for every seed; the interval of two seeds may be wider than the axis.
    low, high = 100 * rows["value"].min(), 100 * rows["value"].max()
    room = 0.08 * (high - low) or 1
    ax.set(ylim=(low - room, high + room), ylabel=f"{metric.capitalize()} (%)")
    ax.set_xlabel("training time (minutes a run)")
    ax.margins(x=0.08)
    if minutes.max() > WIDE * minutes.min() > 0:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
    return points
