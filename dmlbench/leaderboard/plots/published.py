"""The published numbers against those of a study: does the benchmark reproduce the papers?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dmlbench.leaderboard.comparison import Comparison
from dmlbench.leaderboard.plots.figure import (
    add_caption,
    add_panel,
    caption_height,
    describe_count,
    new_figure,
    text_figure,
)
from dmlbench.leaderboard.plots.names import text_width
from dmlbench.leaderboard.style import FADED, STYLE, WIDTH, colour, marker
from dmlbench.study.published import UNCONFIRMED

NOTHING = "no published number could be compared: none is known, or the runs have no such score"
FAMILIES = {"recall@": "Recall@K", "map@r": "MAP@R", "r_precision": "R-Precision", "map": "MAP"}
"""The start of a metric's name -> the panel that shows it."""
OTHERS = "NMI, AMI and others"
COLUMNS = 2
# Inches: a panel with its numbers and title, and a line of the legend
LEFT, RIGHT, TOP, BOTTOM, LEGEND_LINE = 0.6, 0.15, 0.3, 0.45, 0.17
SIDE = WIDTH / COLUMNS - LEFT - RIGHT
NAME_SIZE = 6.5  # points


def published(comparisons: Sequence[Comparison]) -> Iterator[Figure]:
    """The mean of the study against the published number, in percent.

    There is a panel for each family of metrics. A mark is a number of a loss on a data set, a line
    the 95 % interval of the mean; on the diagonal both are equal. A number that was seen in no
    source has a hollow mark. Numbers that cannot be compared are left out.
    """
    compared = [one for one in comparisons if one.mean is not None]
    if not compared:
        yield text_figure(NOTHING)
        return
    families: dict[str, list[Comparison]] = {}
    for one in compared:
        families.setdefault(family(one.published.metric), []).append(one)
    rows = -(-len(families) // COLUMNS)
    yield _draw(families, rows)


def family(metric: str) -> str:
    """The panel of a metric.

    >>> family("recall@10"), family("map@r"), family("nmi")
    ('Recall@K', 'MAP@R', 'NMI, AMI and others')
    """
    return next((name for start, name in FAMILIES.items() if metric.startswith(start)), OTHERS)


@mpl.rc_context(STYLE)
def _draw(families: dict[str, list[Comparison]], rows: int) -> Figure:
    shown = [one for panel in families.values() for one in panel]
    losses = [*dict.fromkeys(one.loss for one in shown)]
    n = describe_count([one.seeds for one in shown], "seed")
    caption = (
        f"mark: mean over seeds, {n}   |   line: "
        "95 % interval of the mean, Student's t over seeds   |   diagonal: as published   |   "
        "hollow: a number from memory, seen in no source   |   settings may differ: see the table"
    )
    columns = max(1, int((WIDTH - 0.2) / (0.35 + max(text_width(n, NAME_SIZE) for n in losses))))
    legend = 0.1 + LEGEND_LINE * -(-len(losses) // columns)
    height = TOP + SIDE + BOTTOM
    figure = new_figure(rows * height + legend + caption_height(caption))
    add_caption(figure, caption)
    for index, (name, panel) in enumerate(families.items()):
        row, column = divmod(index, COLUMNS)
        left = column * WIDTH / COLUMNS + LEFT
        ax = add_panel(figure, left, left + SIDE, row * height + TOP, SIDE)
        ax.set_title(name)
        _fill(ax, panel)
    handles = [Line2D([], [], linestyle="none", **_mark(loss), label=loss) for loss in losses]
    figure.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, caption_height(caption) / figure.get_figheight()),
        ncols=columns,
        fontsize=NAME_SIZE,
        frameon=False,
        handletextpad=0.2,
        columnspacing=1.0,
        borderpad=0,
    )
    return figure


def _mark(loss: str, hollow: bool = False) -> dict[str, Any]:
    tint = colour(loss)
    return {
        "marker": marker(loss),
        "markersize": 5,
        "markerfacecolor": "white" if hollow else tint,
        "markeredgecolor": tint if hollow else "white",
        "markeredgewidth": 0.9 if hollow else 0.5,
    }


def _fill(ax: Axes, panel: Sequence[Comparison]) -> None:
    x = np.array([one.published.value for one in panel])
    y = np.array([one.mean for one in panel], dtype=float)
    halves = np.array([one.half_width for one in panel])
    ax.vlines(x, y - halves, y + halves, colors=[colour(one.loss) for one in panel], linewidths=0.8)
    for one, place in zip(panel, np.column_stack([x, y]), strict=True):
        hollow = one.published.provenance == UNCONFIRMED
        ax.plot(*place, **_mark(one.loss, hollow))
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    room = 0.06 * (high - low) or 1
    ends = (max(low - room, 0), min(high + room, 100 + room))
    ax.plot(ends, ends, color=FADED, linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
    ax.set(xlim=ends, ylim=ends, xlabel="published (%)", ylabel="here (%)")
    ax.grid(axis="both")
