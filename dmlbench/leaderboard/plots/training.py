"""The training loss against the epoch."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from dmlbench.leaderboard.plots.figure import new_figure
from dmlbench.leaderboard.style import INK, STYLE, colour
from dmlbench.leaderboard.table import Result
from dmlbench.study.row_names import is_trained

ROW_HEIGHT = 1.15  # inches of a row of small panels
Cell = tuple[str, str]


def training(results: Sequence[Result]) -> Figure:
    """The training loss against the epoch: a small panel for each loss, a thin line for each seed.

    The scales of the panels differ. × marks where a run failed.
    """
    trained = [result for result in results if is_trained(result.planned["loss"])]
    cells: dict[Cell, dict[str, list[Result]]] = {}
    for result in trained:
        cell = (result.planned["dataset"], result.planned["backbone"])
        cells.setdefault(cell, {}).setdefault(result.planned["loss"], []).append(result)
    columns = min(4, max(map(len, cells.values())))
    heights = [-(-len(losses) // columns) * ROW_HEIGHT + 0.45 for losses in cells.values()]
    with mpl.rc_context(STYLE):
        figure = new_figure(sum(heights))
        parts = figure.subfigures(len(cells), 1, squeeze=False, height_ratios=heights)
        for part, (cell, losses) in zip(parts, cells.items(), strict=True):
            _fill_block(part[0], " · ".join(cell), losses, columns)
    return figure


def _fill_block(part: SubFigure, title: str, losses: dict[str, list[Result]], columns: int) -> None:
    """Fill the panels of one data set and backbone, a panel for each loss."""
    part.suptitle(title, x=0.01, ha="left", fontsize=9, fontweight="bold")
    rows = -(-len(losses) // columns)
    grid = part.subplots(rows, columns, squeeze=False, sharex=True)
    epochs = 1
    for ax, (loss, runs) in zip(grid.flat, losses.items(), strict=False):
        for run in runs:
            history = run.epochs[["epoch", "loss"]]
            dot = "." if len(history) == 1 else None  # a line of one epoch is invisible
            ax.plot(*history.to_numpy().T, marker=dot, c=colour(loss), lw=0.9, alpha=0.8)
            epochs = max([epochs, *history["epoch"]])
            if run.metrics["status"] != "ok" and len(history):
                ax.plot(*history.iloc[-1], marker="x", color=INK, markersize=4.5)
        failed = {run.metrics["status"] for run in runs} - {"ok"}
        if failed:
            note = ", ".join(sorted(failed)).replace("_", " ")
            ax.text(0.97, 0.95, note, transform=ax.transAxes, ha="right", va="top", fontsize=6.5)
        ax.set_title(loss, fontsize=min(7.5, 160 / len(loss)), color=colour(loss))
        ax.yaxis.set_major_locator(MaxNLocator(3))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        ax.tick_params(labelsize=6.5)
    used = len(losses)
    for index, ax in enumerate(grid.flat):
        ax.set_visible(index < used)
        if used - columns <= index < used:  # the lowest panel of its column
            ax.set_xlabel("epoch", fontsize=7)
            ax.tick_params(labelbottom=True)
    grid[0, 0].set_xlim(0, epochs + 0.5)
    for ax in grid[:, 0]:
        ax.set_ylabel("loss", fontsize=7)
    part.align_ylabels(grid[:, 0])
