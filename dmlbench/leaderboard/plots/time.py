"""Recall@1 against training time: what does a better score cost?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from dmlbench.leaderboard.plots.figure import Points, label_nearby, stack_panels
from dmlbench.leaderboard.statistics.means import summarise
from dmlbench.leaderboard.style import colour, marker
from dmlbench.leaderboard.table import recalls
from dmlbench.study.row_names import is_trained

LOG_RATIO = 10
"""If the largest time is more than this many times the smallest, the axis is logarithmic."""


def time(table: pd.DataFrame) -> Iterator[Figure]:
    """Recall@1 (or Recall at the least K scored) in percent against the minutes of one training.

    Marks are means over the seeds, lines the 95 % intervals of the scores. There is a panel for
    each data set, backbone and protocol. Only losses that the study trained are shown.

    Args:
        table: the long table.
    """
    caption = "mark: mean over seeds   |   line: 95 % interval of the score"
    trained = table[table["loss"].map(is_trained)]
    return stack_panels(trained, _points, label_nearby, caption)


def _points(ax: Axes, rows: pd.DataFrame) -> Points:
    metric = recalls(rows)[0]
    rows = rows[rows["metric"] == metric]
    minutes = rows.groupby("loss", sort=False)["train_seconds"].mean() / 60
    scores = 100 * summarise(rows).droplevel("metric")
    points = {loss: (minutes[loss], scores.loc[loss, "mean"]) for loss in minutes.index}
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
    ax.set(ylim=(low - room, high + room), ylabel=f"{metric.capitalize()} (%)")
    ax.set_xlabel("training time of a run (minutes)")
    ax.margins(x=0.08)
    if minutes.max() > LOG_RATIO * minutes.min() > 0:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
    return points
