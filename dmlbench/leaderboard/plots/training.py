"""The training loss against the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from matplotlib.transforms import nonsingular
from numpy.typing import NDArray

from dmlbench.leaderboard.plots.figure import (
    add_caption,
    add_panel,
    caption_height,
    describe_count,
    new_figure,
    split_by_height,
)
from dmlbench.leaderboard.plots.names import text_width
from dmlbench.leaderboard.style import INK, STYLE, WIDTH, colour
from dmlbench.leaderboard.table import Result
from dmlbench.study.row_names import is_trained

Runs = Mapping[str, Sequence[Result]]
"""Loss -> its seeds."""
COLUMNS = 4
# Inches. A panel is the frame of the curves of one loss.
TOP, BOTTOM = 0.42, 0.38  # of a block: its title and that of the panels; numbers and "epoch"
LEFT, RIGHT = 0.53, 0.06  # of a panel: its numbers
PANEL_HEIGHT, ROW_HEIGHT = 0.83, 1.12
TICK = 0.035
MAX_POINTS = 200
"""Points of a curve that are drawn; a picture of more would look the same."""


def training(results: Sequence[Result]) -> Iterator[Figure]:
    """The training loss against the epoch: a small panel for each loss, a thin line for each seed.

    The scales of the panels differ. × marks where a run failed.
    """
    blocks: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        planned = result.planned
        if is_trained(planned["loss"]):
            title = f"{planned['dataset']} · {planned['backbone']}"
            blocks.setdefault(title, {}).setdefault(planned["loss"], []).append(result)
    columns = min(COLUMNS, max(map(len, blocks.values())))
    heights = [
        TOP + ROW_HEIGHT * (-(-len(losses) // columns) - 1) + PANEL_HEIGHT + BOTTOM
        for losses in blocks.values()
    ]
    for part in split_by_height(heights):
        yield _draw([*blocks.items()][part], heights[part], columns)


@mpl.rc_context(STYLE)
def _draw(blocks: Sequence[tuple[str, Runs]], heights: Sequence[float], columns: int) -> Figure:
    """Blocks one below the other. All panels of a block are drawn on one pair of axes in inches:
    matplotlib's own axes take ten times as long, and a study may have thousands of panels."""
    counts = [len(runs) for _, losses in blocks for runs in losses.values()]
    n = describe_count(counts, "seed")
    caption = (
        f"a line for each seed, {n}: no mean, no interval   |   mean loss of an epoch; every loss "
        "has its own scale   |   × a run that failed"
    )
    figure = new_figure(sum(heights) + caption_height(caption))
    add_caption(figure, caption)
    below = 0.0
    for (title, losses), height in zip(blocks, heights, strict=True):
        ax = add_panel(figure, 0, WIDTH, below, height)
        below += height
        ax.set(xlim=(0, WIDTH), ylim=(height, 0))
        ax.set_axis_off()
        ax.text(0.07, 0.04, title, va="top", fontsize=9, fontweight="bold")
        _fill_block(ax, losses, columns)
    return figure


def _fill_block(ax: Axes, losses: Runs, columns: int) -> None:
    """Fill the panels of one data set and backbone."""
    lengths = (result.epochs["epoch"] for runs in losses.values() for result in runs)
    end = 0.5 + max((epochs.max() for epochs in lengths if len(epochs)), default=1)
    pitch = WIDTH / columns
    ticks = [tick for tick in MaxNLocator(4, integer=True).tick_values(0, end) if tick <= end]
    frames: list[Any] = []
    for index, (loss, runs) in enumerate(losses.items()):
        row, column = divmod(index, columns)
        left, top = LEFT + pitch * column, TOP + ROW_HEIGHT * row
        right, bottom = pitch * (column + 1) - RIGHT, top + PANEL_HEIGHT
        x = left + (right - left) * np.array(ticks) / end
        is_lowest = index + columns >= len(losses)
        frames.append([(left, top), (left, bottom), (right, bottom)])
        frames += [[(tick, bottom), (tick, bottom + TICK)] for tick in x]
        for tick, number in zip(x, ticks, strict=True) if is_lowest else ():
            ax.text(tick, bottom + 0.06, f"{number:g}", ha="center", va="top", fontsize=6.5)
        if is_lowest:
            ax.text((left + right) / 2, bottom + 0.2, "epoch", ha="center", va="top", fontsize=7)
        if not column:
            ax.text(0.05, (top + bottom) / 2, "loss", rotation=90, va="center", fontsize=7)
        room = pitch * (column + 1) - left - RIGHT
        size = min(7.5, 7.2 * room / text_width(loss, 7.5, "bold"))
        ax.text(left, top - 0.06, loss, fontsize=size, fontweight="bold", color=colour(loss))
        failed = {run.metrics["status"] for run in runs} - {"ok"}
        note = ", ".join(sorted(failed)).replace("_", " ")
        if note:
            ax.text(right - 0.04, top + 0.04, note, ha="right", va="top", fontsize=6.5)
        _draw_curves(ax, loss, runs, (left, right, top, bottom), end, frames)
    ax.add_collection(LineCollection(frames, colors=INK, linewidths=0.6))


def _draw_curves(
    ax: Axes,
    loss: str,
    runs: Sequence[Result],
    box: tuple[float, float, float, float],
    end: float,
    frames: list[Any],
) -> None:
    """Draw the curves of `runs` into `box`, which is left, right, top and bottom, with their scale.

    Args:
        end: the epoch at the right.
        frames: the ticks of the scale are added to these lines.
    """
    left, right, top, bottom = box
    curves = [_thin(_curve(run)) for run in runs]
    values = np.concatenate([curve[:, 1] for curve in curves])
    low, high = nonsingular(values.min(), values.max()) if len(values) else (0.0, 1.0)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)

    def place(value: Any) -> Any:
        return bottom - (bottom - top) * (value - low) / (high - low)

    ticks = [tick for tick in MaxNLocator(3).tick_values(low, high) if low <= tick <= high]
    for tick, text in zip(ticks, _format(ticks, low, high), strict=True):
        frames.append([(left - TICK, place(tick)), (left, place(tick))])
        ax.text(left - 0.06, place(tick), text, ha="right", va="center", fontsize=6.5)
    placed = [
        np.column_stack([left + (right - left) * curve[:, 0] / end, place(curve[:, 1])])
        for curve in curves
    ]
    tint = colour(loss)
    ax.add_collection(LineCollection(placed, colors=tint, linewidths=0.9, alpha=0.8))
    for run, curve in zip(runs, placed, strict=True):
        if len(curve) == 1:  # a line of one epoch is invisible
            ax.plot(*curve[-1], marker=".", color=tint, alpha=0.8)
        if len(curve) and run.metrics["status"] != "ok":
            ax.plot(*curve[-1], marker="x", color=INK, markersize=4.5)


def _curve(run: Result) -> NDArray[np.float64]:
    """The loss of each epoch, (n, 2); the mean over the models of a run that has several."""
    epochs = run.epochs[["epoch", "loss"]]
    if "model" in run.epochs:
        epochs = epochs.groupby("epoch", as_index=False).mean()
    return epochs.to_numpy(np.float64)


def _thin(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most MAX_POINTS of the points (n, 2) of a curve that are finite, with both ends."""
    curve = curve[np.isfinite(curve).all(axis=1)]
    if len(curve) <= MAX_POINTS:
        return curve
    return curve[np.linspace(0, len(curve) - 1, MAX_POINTS).round().astype(int)]


def _format(ticks: list[float], low: float, high: float) -> list[str]:
    """The numbers of `ticks`, with the same number of digits after the point; as powers of ten if
    they would be long."""
    if not 1e-3 <= max(map(abs, ticks), default=1.0) < 1e5:
        return [f"{tick:.3g}" for tick in ticks]
    formatter = ScalarFormatter(useOffset=False)
    formatter.set_scientific(False)
    formatter.create_dummy_axis()
    formatter.axis.set_view_interval(low, high)  # type: ignore[union-attr]
    return formatter.format_ticks(ticks)
