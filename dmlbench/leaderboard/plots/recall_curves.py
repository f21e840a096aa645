"""Recall@K against K: does a loss lead at every depth?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy.special import expit, logit

from dmlbench.leaderboard.plots.figure import describe_seeds
from dmlbench.leaderboard.plots.names import Points, label_at_right
from dmlbench.leaderboard.plots.stack import stack_panels
from dmlbench.leaderboard.style import colour, marker
from dmlbench.leaderboard.table import recalls
from dmlbench.study.row_names import is_control

TICKS = [0.1, 0.2, 0.5, 1, 2, 5, *range(10, 100, 10), 95, 98, 99, 99.5, 99.8, 99.9]


def recall_curves(table: pd.DataFrame) -> Iterator[Figure]:
    """Recall@K in percent at the K that were scored, without controls.

    Thick lines are means over the seeds of a loss, thin lines are single seeds. Both axes are
    logarithmic: one shows K, the other the odds of a hit. There is a panel for each data set,
    backbone and protocol.

    Args:
        table: the long table.
    """
    rows = table[~table["loss"].map(is_control)]  # controls would press the curves together
    return stack_panels(rows, _curves, label_at_right, _caption)


def _caption(rows: pd.DataFrame) -> str:
    return (
        f"thick: mean over seeds, {describe_seeds(rows)}, without an interval   |   thin: single "
        "seeds   |   names: as the curves end"
    )


def _curves(ax: Axes, rows: pd.DataFrame) -> Points:
    metrics = recalls(rows)
    depths = [int(metric.partition("@")[2]) for metric in metrics]
    values = rows.pivot(index=["loss", "seed"], columns="metric", values="value")
    seeds = 100 * values.reindex(columns=metrics).dropna()
    ends = {}
    for loss in map(str, seeds.index.unique("loss")):
        curves = seeds.loc[loss].to_numpy()
        lines = [np.column_stack([depths, curve]) for curve in curves]
        ax.add_collection(LineCollection(lines, colors=colour(loss), linewidths=0.5, alpha=0.35))
        mean = curves.mean(axis=0)
        (line,) = ax.plot(depths, mean, color=colour(loss), linewidth=1.2, alpha=0.9)
        line.set(marker=marker(loss), markersize=4, markeredgecolor="white", markeredgewidth=0.4)
        line.set_clip_on(False)  # at 0 and 100 % the line is on the edge of the panel
        ends[loss] = (depths[-1], mean[-1])
    ax.set(xscale="log", xlabel="K", ylabel="Recall@K (%)")
    ax.set_yscale("function", functions=(_to_odds, _from_odds))
    odds = _to_odds(seeds.to_numpy())
    low, high = _from_odds(np.array([odds.min() - 0.15, odds.max() + 0.15]))
    ax.set_ylim(low, high)
    ax.set_yticks([tick for tick in TICKS if low <= tick <= high])
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_xticks(depths, map(str, depths))
    ax.xaxis.set_minor_locator(NullLocator())
    return ends


def _to_odds(percent: np.ndarray) -> np.ndarray:
    """Log odds of a hit. They stretch the axis near 100 %, where the curves meet."""
    return logit(np.clip(percent, 0.05, 99.95) / 100)


def _from_odds(odds: np.ndarray) -> np.ndarray:
    return 100 * expit(odds)
