"""The mean ranks of the losses over the data sets, and which of them are tied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from dmlbench.leaderboard.plots.figure import (
    add_caption,
    add_panel,
    caption_height,
    new_figure,
    text_figure,
)
from dmlbench.leaderboard.plots.names import NAME_SIZE, text_width
from dmlbench.leaderboard.statistics.over_datasets import OverDatasets, over_datasets
from dmlbench.leaderboard.statistics.panel import PanelStatistics
from dmlbench.leaderboard.style import FADED, INK, STYLE, WIDTH, colour
from dmlbench.study.row_names import display_name

# Lengths in inches
TITLE, TOP, ROW, BAR, MARGIN, GAP = 0.25, 0.75, 0.15, 0.09, 0.1, 0.08
LEAST_STEP = 0.18  # inches from the number of a rank to the next
LONGEST_NAME = 34  # letters
CAPTION = (
    "mean rank over n = {} data sets, 1 is the best; a score is the mean over seeds   |   thick "
    "line: losses that Nemenyi's test does not separate at 5 %"
)


def critical_difference(statistics: Mapping[str, PanelStatistics]) -> Iterator[Figure]:
    """A diagram of critical differences (Demsar 2006) for each backbone.

    Args:
        statistics: title of a panel -> its statistics.
    """
    comparisons = [*over_datasets(statistics.values())]
    if not comparisons:
        yield text_figure("no three losses have a score on two data sets with the same backbone")
    for comparison in comparisons:
        yield _draw(comparison)


@mpl.rc_context(STYLE)
def _draw(comparison: OverDatasets) -> Figure:
    """The axis of the ranks at the top, the names at both sides, and a bar for each group."""
    losses, ranks = comparison.losses, comparison.ranks
    groups = [group for group in ranks.tie_groups if len(group) > 1]
    levels = _levels([(ranks.means[group[0]], ranks.means[group[-1]]) for group in groups])
    half = -(-len(losses) // 2)
    band = BAR * (max(levels, default=-1) + 1.5)
    height = TOP + band + ROW * (half + 0.5)
    caption = CAPTION.format(len(comparison.datasets))
    figure = new_figure(TITLE + height + caption_height(caption))
    width = WIDTH - 2 * MARGIN
    ax = add_panel(figure, MARGIN, MARGIN + width, TITLE, height)
    ax.set(xlim=(0, width), ylim=(-height, 0))
    ax.axis("off")
    names = [_short_name(loss) for loss in losses]
    left = _longest(names[:half]) + GAP
    right = width - _longest(names[half:]) - GAP

    def position(rank: float) -> float:
        return left + GAP + (right - left - 2 * GAP) * (rank - 1) / (len(losses) - 1)

    _draw_axis(ax, comparison, position(1), position(len(losses)))
    for place, (loss, name) in enumerate(zip(losses, names, strict=True)):
        is_left = place < half
        row = place if is_left else len(losses) - 1 - place
        y = -TOP - band - ROW * (row + 0.5)
        x, edge = position(ranks.means[place]), left if is_left else right
        ax.plot([x, x, edge], [-TOP, y, y], color=colour(loss), linewidth=0.8)
        ax.text(
            edge + (-GAP if is_left else GAP) / 2,
            y,
            name,
            ha="right" if is_left else "left",
            va="center",
            fontsize=NAME_SIZE,
            color=0.6 * np.array(to_rgb(colour(loss))),
        )
    for group, level in zip(groups, levels, strict=True):
        ends = [position(ranks.means[group[0]]), position(ranks.means[group[-1]])]
        ends = [ends[0] - GAP / 2, ends[1] + GAP / 2]
        y = -TOP - BAR * (level + 1)
        ax.plot(ends, [y, y], color=INK, linewidth=2.5, solid_capstyle="butt", zorder=3)
    ax.set_title(f"{comparison.backbone}: {len(comparison.datasets)} data sets", pad=2)
    add_caption(figure, caption)
    return figure


def _draw_axis(ax: Axes, comparison: OverDatasets, start: float, end: float) -> None:
    """The ranks, and the critical difference as a length above them."""
    count = len(comparison.losses)
    ax.plot([start, end], [-TOP, -TOP], color=INK, linewidth=0.8)
    step = (end - start) / (count - 1)
    every = next(n for n in (1, 2, 5, 10, 20, 50, count) if n * step >= LEAST_STEP or n >= count)
    for rank in range(1, count + 1):
        x = start + step * (rank - 1)
        ax.plot([x, x], [-TOP, -TOP + 0.04], color=INK, linewidth=0.6)
        if rank not in (1, count) and (rank % every or count - rank < every):
            continue  # its number would touch that of the last rank, or that of its neighbour
        ax.text(x, -TOP + 0.06, str(rank), ha="center", va="bottom", fontsize=6.5)
    difference = comparison.ranks.critical_difference
    text = f"critical difference {difference:.2f}"
    length = (end - start) * difference / (count - 1)
    if difference > count - 1:
        text, length = f"{text}: longer than the axis, so nothing is separated", 0.0
    y = -TOP + 0.4
    ax.plot([start, start + length], [y, y], color=INK, linewidth=0.8)
    for x in (start, start + length) if length else ():
        ax.plot([x, x], [y - 0.03, y + 0.03], color=INK, linewidth=0.8)
    ax.text(start, y + 0.05, text, ha="left", va="bottom", fontsize=7, color=FADED)


def _levels(bars: Sequence[tuple[float, float]]) -> list[int]:
    """The line of each bar, such that bars on one line are at least one rank apart.

    >>> _levels([(1.0, 2.5), (2.0, 3.0), (3.2, 4.0), (3.9, 6.0)])
    [0, 1, 2, 0]
    """
    ends: list[float] = []
    levels = []
    for start, end in bars:
        level = next((place for place, last in enumerate(ends) if last + 1 <= start), len(ends))
        ends[level : level + 1] = [end]
        levels.append(level)
    return levels


def _short_name(loss: str) -> str:
    name = display_name(loss)
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _longest(names: Sequence[str]) -> float:
    """The width of the longest name in inches."""
    return max(text_width(name, NAME_SIZE) for name in names)
