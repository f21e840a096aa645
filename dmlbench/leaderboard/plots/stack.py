"""Figures of wide panels one below the other: one for each data set, backbone and protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dmlbench.leaderboard.plots.figure import (
    add_caption,
    add_panel,
    caption_height,
    new_figure,
    split_by_height,
    text_figure,
)
from dmlbench.leaderboard.plots.names import (
    BESIDE,
    LINE_HEIGHT,
    NAME_SIZE,
    Points,
    label_at_right,
    text_width,
)
from dmlbench.leaderboard.style import STYLE, WIDTH
from dmlbench.leaderboard.table import Panel, panels, recalls
from dmlbench.study.row_names import display_name

NO_RECALL = "no run has a Recall@K"
PANEL_HEIGHT = 3.8  # inches; a panel with more names than fit is higher
# Inches from the frame of a panel to the end of its place: numbers and labels are in between
LEFT, RIGHT, TOP, BOTTOM = 0.6, 0.12, 0.3, 0.45

Draw = Callable[[Axes, pd.DataFrame], Points]
"""Fills a panel with its rows, and returns the points to label."""
Label = Callable[[Axes, Points], None]
"""Writes the names of the losses at these points."""
Caption = Callable[[pd.DataFrame], str]


def stack_panels(
    table: pd.DataFrame, draw: Draw, label: Label, caption: Caption
) -> Iterator[Figure]:
    """Figures with one panel for each data set, backbone and protocol that has a Recall@K.

    Args:
        table: the long table.
        caption: from the rows of a figure to what its marks mean.
    """
    shown = recall_panels(table)
    if not shown:
        yield text_figure(NO_RECALL)
    yield from draw_panels(shown, draw, label, caption)


def recall_panels(table: pd.DataFrame) -> list[Panel]:
    """The panels of the long `table` that have a Recall@K, with these rows alone."""
    return [*panels(table[table["metric"].isin(recalls(table))])]


def draw_panels(
    shown: Sequence[Panel], draw: Draw, label: Label, caption: Caption
) -> Iterator[Figure]:
    """Figures with the panels `shown`; see `stack_panels`."""
    heights = [max(PANEL_HEIGHT, 1 + panel.rows["loss"].nunique() * LINE_HEIGHT) for panel in shown]
    for part in split_by_height(heights):
        rows = pd.concat([panel.rows for panel in shown[part]])
        yield _draw(shown[part], heights[part], draw, label, caption(rows))


@mpl.rc_context(STYLE)
def _draw(
    shown: Sequence[Panel], heights: Sequence[float], draw: Draw, label: Label, caption: str
) -> Figure:
    figure = new_figure(sum(heights) + caption_height(caption))
    add_caption(figure, caption)
    right = WIDTH - RIGHT
    if label is label_at_right:  # with room for the longest name
        names = {display_name(loss) for panel in shown for loss in panel.rows["loss"].unique()}
        longest = max(text_width(name, NAME_SIZE) for name in names)
        right = LEFT + (right - longest - LEFT) / BESIDE
    below = 0.0
    for panel, height in zip(shown, heights, strict=True):
        ax = add_panel(figure, LEFT, right, below + TOP, height - TOP - BOTTOM)
        points = draw(ax, panel.rows)
        ax.set_title(panel.title)
        ax.grid(axis="both")
        ax.autoscale_view()  # else the margins count only when the figure is drawn
        label(ax, points)
        below += height
    return figure
