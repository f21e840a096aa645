"""MAP@R and Recall@1 of each loss as bars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import nan
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from dmlbench.leaderboard.plots.figure import (
    add_caption,
    add_panel,
    caption_height,
    describe_seeds,
    new_figure,
    split_by_height,
)
from dmlbench.leaderboard.plots.names import text_width
from dmlbench.leaderboard.statistics.means import summarise
from dmlbench.leaderboard.style import FADED, INK, STYLE, WIDTH, colour
from dmlbench.leaderboard.table import VERIFICATION, Panel, panels
from dmlbench.study.row_names import display_name, is_control

# Inches: a bar; the title above the panels of a row, the numbers and names of the axes below; the
# space between the names of the losses and the edge and the panels, and between the panels
BAR_HEIGHT, TOP, BOTTOM, EDGE, GAP, BETWEEN = 0.23, 0.3, 0.5, 0.08, 0.04, 0.2
MAX_LEFT = 4.0  # inches that the names of the losses take at most
NAME_SIZE = 8  # points
ROOM = 1.15  # length of an axis as a multiple of the largest value that it shows
SHOWN = {"map@r": "MAP@R", "recall@1": "Recall@1"}
"""Metrics of retrieval that a row of panels shows, with their names. The first one ranks the
losses."""


class Bar(NamedTuple):
    """The bar of one loss."""

    loss: str
    y: float
    seeds: np.ndarray[Any, Any]
    """Their values (n,)."""
    half: float
    """Half the width of the interval of their mean; NaN for one seed."""

    @property
    def mean(self) -> float:
        return float(self.seeds.mean())


def recall(table: pd.DataFrame) -> Iterator[Figure]:
    """MAP@R and Recall@1 of each loss, or its verification accuracy, in percent.

    It shows the mean, its 95 % interval and the seeds; the best loss comes first, and controls come
    last. There is a row of panels for each data set, backbone and protocol.

    Args:
        table: the long table.
    """
    shown = list(panels(table))
    bars = [panel.rows["loss"].nunique() + 0.5 for panel in shown]
    for part in split_by_height([_height(count) for count in bars]):
        yield _draw(shown[part], bars[part])


def _height(bars: float) -> float:
    """The height in inches of a row of panels with this many bars."""
    return TOP + bars * BAR_HEIGHT + BOTTOM


@mpl.rc_context(STYLE)
def _draw(shown: Sequence[Panel], bars: Sequence[float]) -> Figure:
    """A row of panels for each of `shown`; `bars` are their heights in bars."""
    n = describe_seeds(pd.concat([panel.rows for panel in shown]))
    caption = (
        f"bar: mean over seeds, {n}   |   line: 95 % interval of the mean, Student's t over seeds"
        "   |   dots: single seeds"
    )
    figure = new_figure(sum(map(_height, bars)) + caption_height(caption))
    add_caption(figure, caption)
    labels = [_row_labels(panel) for panel in shown]
    longest = max(text_width(text, NAME_SIZE) for texts in labels for text in texts.values())
    left = min(EDGE + longest + GAP, MAX_LEFT)
    width = (WIDTH - left - BETWEEN - EDGE) / 2
    below = 0.0
    for panel, count, texts in zip(shown, bars, labels, strict=True):
        row = [
            add_panel(figure, edge, edge + width, below + TOP, count * BAR_HEIGHT)
            for edge in (left, left + width + BETWEEN)
        ]
        _bars(row, panel, texts)
        row[0].set_title(panel.title)
        below += _height(count)
    return figure


def _row_labels(panel: Panel) -> dict[str, str]:
    """Loss -> what is written beside its bar; the best loss first, controls last."""
    rows = panel.rows
    ranked_by = next(iter(_shown(panel)))
    means = rows[rows["metric"] == ranked_by].groupby("loss")["value"].mean()
    runs = rows.drop_duplicates(["loss", "seed"])
    done = (runs["status"] == "ok").groupby(runs["loss"]).agg(["sum", "count"])
    losses = sorted(
        map(str, done.index), key=lambda loss: (is_control(loss), -means.get(loss, -1), loss)
    )
    return {loss: _row_label(loss, *done.loc[loss]) for loss in losses}


def _shown(panel: Panel) -> dict[str, str]:
    return VERIFICATION if panel.metrics is VERIFICATION else SHOWN


def _bars(axes: Sequence[Axes], panel: Panel, labels: Mapping[str, str]) -> None:
    """Fill the two pictures of one data set, backbone and protocol.

    Args:
        labels: loss -> what is written beside its bar, from top to bottom.
    """
    rows = panel.rows
    summary = 100 * summarise(rows)
    means: dict[Any, float] = summary["mean"].to_dict()
    halves: dict[Any, float] = summary["half_width"].to_dict()
    shown = _shown(panel)
    # half a bar of space above the controls
    positions = {loss: -row - 0.5 * is_control(loss) for row, loss in enumerate(labels)}
    axes[1].set_visible(len(shown) > 1)
    for ax, (metric, name) in zip(axes, shown.items(), strict=False):
        values = 100 * rows[rows["metric"] == metric].set_index("loss")["value"]
        seeds = {str(loss): cell.to_numpy() for loss, cell in values.groupby(level=0)}
        best = max((max(cell) for loss, cell in seeds.items() if not is_control(loss)), default=nan)
        ends = [means[cell] + halves[cell] for cell in means if cell[1] == metric]
        # Leave room for intervals (but not for a huge one of two seeds) and for the numbers.
        limit = ROOM * np.nanmax([best, *np.minimum(ends, 1.4 * best)]) if best > 0 else 100.0
        bars = [
            Bar(loss, y, seeds[loss], halves[loss, metric])
            for loss, y in positions.items()
            if loss in seeds
        ]
        if bars:
            _draw_bars(ax, bars, limit)
        for loss in positions.keys() - seeds.keys():
            status = ", ".join(rows.loc[rows["loss"] == loss, "status"].unique())
            text = status.replace("_", " ")
            _label(ax, 0, positions[loss], text, style="italic", color=FADED)
        ax.set(xlim=(0, limit), ylim=(min(positions.values()) - 0.6, 0.6), xlabel=f"{name} (%)")
        ax.grid(axis="x")
        ax.set_yticks([])
    ticks = axes[0].set_yticks([*positions.values()], [*labels.values()], fontsize=NAME_SIZE)
    axes[0].tick_params(axis="y", length=0, pad=GAP * 72)
    for tick, loss in zip(ticks, labels, strict=True):
        tick.label1.set_color(FADED if is_control(loss) else INK)


def _draw_bars(ax: Axes, bars: Sequence[Bar], limit: float) -> None:
    """Draw `bars` on an axis that ends at `limit`: their means, seeds and intervals."""
    pale = [tuple(0.45 * part + 0.55 for part in to_rgb(colour(bar.loss))) for bar in bars]
    ax.barh([bar.y for bar in bars], [bar.mean for bar in bars], height=0.72, color=pale)
    for bar in bars:
        if bar.mean > limit:  # the oracle: an axis up to 100 % would make all other bars short
            _label(ax, limit, bar.y, f"{bar.mean:.1f} →", offset=-2, ha="right", fontsize=7)
        else:
            right = np.nanmax([bar.seeds.max(), bar.mean + bar.half])
            _label(ax, min(right, limit / ROOM), bar.y, f"{bar.mean:.1f}", fontsize=7)
    if several := [bar for bar in bars if len(bar.seeds) > 1 and bar.mean <= limit]:
        ax.scatter(
            np.concatenate([bar.seeds for bar in several]),
            np.concatenate([bar.y + np.linspace(-0.2, 0.2, len(bar.seeds)) for bar in several]),
            s=8,
            color=[colour(bar.loss) for bar in several for _ in bar.seeds],
            edgecolor="white",
            linewidth=0.4,
            zorder=3,
        )
        ax.errorbar(
            [bar.mean for bar in several],
            [bar.y for bar in several],
            xerr=[bar.half for bar in several],
            fmt="none",
            ecolor=INK,
            elinewidth=0.9,
            capsize=2.4,
            zorder=4,
        )


def _label(ax: Axes, x: float, y: float, text: str, offset: float = 4, **style: Any) -> None:
    ax.annotate(text, (x, y), (offset, 0), textcoords="offset points", va="center", **style)


def _row_label(loss: str, done: int, planned: int) -> str:
    if is_control(loss):
        return f"{display_name(loss)} (control)"
    name = display_name(loss)
    return f"{name} ({done} of {planned} seeds)" if 0 < done < planned else name
