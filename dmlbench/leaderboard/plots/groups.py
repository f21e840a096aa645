"""The groups of the training classes that a loss has learnt, against the true super-classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dmlbench.evaluation.clustering import ami
from dmlbench.leaderboard.plots.figure import (
    add_caption,
    add_panel,
    caption_height,
    new_figure,
    text_figure,
)
from dmlbench.leaderboard.plots.learnt import cell_title, named_levels, read_artefact
from dmlbench.leaderboard.plots.names import text_width
from dmlbench.leaderboard.style import FADED, STYLE, WIDTH, colour
from dmlbench.leaderboard.table import Result
from dmlbench.utils.text import literal

PARENTS = "parents"
"""What a loss that learns groups has in its artefact: the group of each class at each level."""
MAX_ROWS, MAX_COLUMNS = 120, 40
"""More super-classes or groups could not be read."""
LONGEST = 30  # letters of a name
NAME_SIZE = 6  # points
# Inches
EDGE, TOP, BOTTOM, ROW, MAX_CELL = 0.1, 0.3, 0.35, 0.12, 0.35


def has_groups(results: Sequence[Result]) -> bool:
    """Whether the loss of these seeds has learnt groups of classes."""
    return any(read_artefact(result, PARENTS) for result in results)


def groups(results: Sequence[Result]) -> Figure:
    """The learnt groups of the first seed that has some: a cell is the share of the classes of a
    super-class, or of a class if there are none, in a group.

    Args:
        results: the seeds of one data set, backbone and loss.
    """
    for result in results:
        if artefact := read_artefact(result, PARENTS):
            return _draw(result, artefact)
    return text_figure(f"{cell_title(results[0])}: no groups were kept")


def contingency(
    super_classes: Sequence[str], group: Sequence[int]
) -> tuple[list[str], list[int], NDArray[np.int64]]:
    """How many classes of each super-class are in each group.

    Groups and super-classes that share many classes stand next to each other: groups come in the
    order of their largest super-class, super-classes by their names.

    Returns:
        The names of the super-classes, the numbers of the groups, and the counts (super-classes,
        groups).

    >>> contingency(["b", "b", "a", "a"], [7, 7, 9, 9])
    (['a', 'b'], [9, 7], array([[2, 0],
           [0, 2]]))
    """
    names, rows = np.unique(super_classes, return_inverse=True)
    numbers, columns = np.unique(group, return_inverse=True)
    counts = np.zeros((len(names), len(numbers)), np.int64)
    np.add.at(counts, (rows, columns), 1)
    order = np.lexsort((numbers, -counts.max(axis=0), counts.argmax(axis=0)))
    return [*map(str, names)], [int(number) for number in numbers[order]], counts[:, order]


def _draw(result: Result, artefact: Mapping[str, Any]) -> Figure:
    classes = [*map(literal, artefact["classes"])]
    levels = named_levels(result, artefact)
    level, super_classes = next(
        ((name, of) for name, of in levels.items() if 1 < len({*of}) < len(classes)),
        ("class", classes),
    )
    parents = artefact["learnt"][PARENTS]
    found = [contingency(super_classes, parent) for parent in parents]
    title = f"{cell_title(result)}, seed {result.planned['seed']}: {len(classes):,} classes"
    agreements = [
        f"{ami(super_classes, parent):.2f} for {len({*parent})} groups" for parent in parents
    ]
    caption = "n = 1 seed, the first that has groups: no mean, no interval"
    if level != "class":
        caption += (
            f"   |   adjusted mutual information with {level}: {'; '.join(agreements)} "
            "(1: the same groups, 0: chance)"
        )
    shown = [f for f in found if len(f[0]) <= MAX_ROWS and len(f[1]) <= MAX_COLUMNS]
    if not shown:
        return text_figure(f"{title}: too many groups or rows to draw   |   {caption}")
    return _draw_tables(result, title, level, shown, caption)


@mpl.rc_context(STYLE)
def _draw_tables(
    result: Result,
    title: str,
    level: str,
    tables: Sequence[tuple[list[str], list[int], NDArray[np.int64]]],
    caption: str,
) -> Figure:
    heights = [TOP + ROW * len(names) + BOTTOM for names, *_ in tables]
    caption = (
        f"rows: {level}   |   a number: its classes that are in a group; dark: most of them   |   "
        f"{caption}"
    )
    figure = new_figure(sum(heights) + caption_height(caption))
    add_caption(figure, caption)
    labels = [[name[:LONGEST] for name in names] for names, *_ in tables]
    left = EDGE + max(text_width(name, NAME_SIZE) for row in labels for name in row) + 0.06
    below = 0.0
    for (_, numbers, counts), names, height in zip(tables, labels, heights, strict=True):
        width = min(WIDTH - EDGE - left, MAX_CELL * len(numbers))
        ax = add_panel(figure, left, left + width, below + TOP, ROW * len(names))
        _fill(ax, counts, names, numbers, colour(result.planned["loss"]))
        if not below:
            ax.set_title(title, x=-(left - EDGE) / width, ha="left")
        below += height
    return figure


def _fill(
    ax: Axes, counts: NDArray[np.int64], names: Sequence[str], numbers: Sequence[int], tint: str
) -> None:
    """Draw a table of `counts` whose cells are as dark as their share of the row."""
    shades = LinearSegmentedColormap.from_list("shades", ["#ffffff", tint])
    shares = counts / counts.sum(axis=1, keepdims=True)
    rows, columns = counts.shape
    ax.pcolormesh(shares, cmap=shades, vmin=0, vmax=1, edgecolors="white", linewidth=0.4)
    ax.set(xlim=(0, columns), ylim=(rows, 0))
    for row, column in zip(*counts.nonzero(), strict=True):
        ax.text(
            column + 0.5,
            row + 0.52,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=5,
            color="white" if shares[row, column] > 0.5 else "black",
        )
    ax.set_xticks(np.arange(columns) + 0.5, [*map(str, numbers)], fontsize=NAME_SIZE)
    ax.set_yticks(np.arange(rows) + 0.5, names, fontsize=NAME_SIZE)
    ax.tick_params(length=0, pad=2)
    ax.set_xlabel("learnt group", fontsize=7, color=FADED)
    ax.xaxis.set_label_coords(0.5, -0.15 / (ROW * rows))
    ax.spines[["left", "bottom"]].set_visible(False)
