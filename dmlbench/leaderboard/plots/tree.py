"""The tree of the training classes that a loss has learnt: which classes it puts close together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
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
from dmlbench.leaderboard.style import COLOURS, FADED, GRID, INK, STYLE, WIDTH, colour
from dmlbench.leaderboard.table import Result
from dmlbench.utils.text import literal

MAX_LEAVES = 1000
"""A tree of more classes is cut: only its last merges are drawn."""
MAX_NAMED = 160
"""A tree of more classes is drawn without their names."""
MAX_SUPER_CLASSES = 32
"""More super-classes cannot be told apart by colour."""
LONGEST_CLASS, LONGEST_SUPER_CLASS = 36, 26  # letters of a name
LINE_HEIGHT = 0.085  # inches from one class name to the next
NAME_SIZE = 5  # points
# Inches: the edge of the page; the band of super-classes beside the tree; above and below the tree
EDGE, BAND, TOP, BOTTOM = 0.1, 0.12, 0.45, 0.42


class Layout(NamedTuple):
    """How a tree is drawn. Nodes are numbered as in scipy: first the classes, then the merges."""

    leaves: list[int]
    """From top to bottom: classes, or the groups that the merges which are not drawn made."""
    merges: list[tuple[int, int, int]]
    """(first node, second node, the node that they make)."""
    distance: NDArray[np.float64]
    """The distance at which each node was merged; 0 for classes."""
    position: NDArray[np.float64]
    """The position of each drawn node from top to bottom; leaves are 1 apart."""
    group: NDArray[np.int64]
    """The super-class of all classes of each node; -1 if they are of several."""


def tree(results: Sequence[Result]) -> Figure:
    """The tree of the first seed that has one, or a line of text that says why none has.

    It shows the distances at which classes were merged, in the colours of their super-classes, and
    the thresholds of the levels.

    Args:
        results: the seeds of one data set, backbone and loss.
    """
    for result in results:
        if artefact := read_artefact(result, "merges"):
            return _draw(result, artefact)
    failed = {result.run["status"] for result in results} - {"ok"}
    reason = ", ".join(sorted(failed)).replace("_", " ") or "none was kept"
    return text_figure(f"{cell_title(results[0])}: no tree: {reason}")


def compute_layout(
    linkage: NDArray[np.float64], groups: NDArray[np.int64], max_leaves: int
) -> Layout:
    """Where the nodes of a tree are drawn.

    scipy's own drawing recurses once for each level of the tree, and single linkage can make
    thousands of levels. This does not recurse.

    Args:
        linkage: merges (C - 1, 4) as `scipy.cluster.hierarchy.linkage` returns them.
        groups: super-classes (C,) of the classes, from 0.
        max_leaves: draw only the last merges if there are more leaves.
    """
    count, nodes = len(groups), len(groups) + len(linkage)
    pairs = dict(enumerate(map(tuple, linkage[:, :2].astype(int).tolist()), count))
    sizes = np.zeros((nodes, groups.max() + 1), dtype=np.int64)
    sizes[np.arange(count), groups] = 1
    for node, (first, second) in pairs.items():
        sizes[node] = sizes[first] + sizes[second]
    drawn = {node: pair for node, pair in pairs.items() if node > nodes - max_leaves}
    leaves, todo = [], [nodes - 1]
    while todo:
        node = todo.pop()
        if node in drawn:
            todo += drawn[node]
        else:
            leaves.append(node)
    position = np.zeros(nodes)
    position[leaves] = np.arange(len(leaves))
    for node, (first, second) in drawn.items():
        position[node] = (position[first] + position[second]) / 2
    return Layout(
        leaves=leaves,
        merges=[(first, second, node) for node, (first, second) in drawn.items()],
        distance=np.concatenate([np.zeros(count), linkage[:, 2]]),
        position=position,
        group=np.where(sizes.max(axis=1) == sizes.sum(axis=1), sizes.argmax(axis=1), -1),
    )


@mpl.rc_context(STYLE)
def _draw(result: Result, artefact: Mapping[str, Any]) -> Figure:
    classes, learnt = [*map(literal, artefact["classes"])], artefact["learnt"]
    level, super_classes = _super_classes(result, artefact)
    names, groups = np.unique(super_classes, return_inverse=True)
    layout = compute_layout(np.array(learnt["merges"]), groups, MAX_LEAVES)
    first_tints = [*COLOURS.values()][: len(names)] if level else [INK]
    tints = [*first_tints, *map(colour, names[len(first_tints) :]), FADED]
    node_colours = [tints[group] for group in layout.group]

    named = len(layout.leaves) == len(classes) <= MAX_NAMED
    labels = [str(name)[:LONGEST_SUPER_CLASS] for name in names]
    columns = min(5, int(WIDTH / (0.4 + 0.055 * max(map(len, labels)))))
    legend_height = 0.3 + 0.15 * -(-len(names) // columns) if level else 0.0
    height = LINE_HEIGHT * len(classes) if named else 7.0
    leaves = [classes[leaf][:LONGEST_CLASS] for leaf in layout.leaves] if named else [""]
    right = WIDTH - EDGE - BAND - max(text_width(name, NAME_SIZE) for name in leaves)
    caption = _caption(result, artefact)
    bottom = legend_height + caption_height(caption)
    figure = new_figure(TOP + height + BOTTOM + bottom)
    add_caption(figure, caption)
    ax = add_panel(figure, EDGE, right, TOP, height)
    top = layout.distance[-1]
    least = min(layout.distance[node] for *_, node in layout.merges)
    low = max(0.0, least - 0.06 * (top - least))  # where the lines of the leaves start
    _draw_merges(ax, layout, node_colours, low, 0.8 if named else 0.45)
    _draw_thresholds(ax, learnt.get("thresholds", []), low, top)
    ax.set(xlim=(top + 0.02 * (top - low), low), ylim=(len(layout.leaves) - 0.5, -0.5))
    ax.set_xlabel("distance at which classes were merged; numbered lines: thresholds of the levels")
    part = "" if len(layout.leaves) == len(classes) else f", the last {len(layout.leaves)} groups"
    seed = result.planned["seed"]
    ax.set_title(f"{cell_title(result)}, seed {seed}: {len(classes):,} classes{part}", pad=14)
    _draw_leaves(ax, [node_colours[leaf] for leaf in layout.leaves])
    ax.set_yticks([])
    # texts, for the ticks of an axis take three times as long
    for y, (leaf, name) in enumerate(zip(layout.leaves, leaves, strict=False)):
        ax.annotate(
            name, (1, y), (BAND * 72, 0), ax.get_yaxis_transform(), "offset points", va="center",
            fontsize=NAME_SIZE, color=node_colours[leaf], annotation_clip=False,
        )  # fmt: skip
    ax.spines[["left", "right"]].set_visible(False)
    if level:
        # `tints` has one colour more, of nodes of several super-classes
        patches = [Patch(color=tint, label=name) for tint, name in zip(tints, labels, strict=False)]
        legend = figure.legend(
            handles=patches,
            title=level,
            loc="lower center",
            bbox_to_anchor=(0.5, caption_height(caption) / figure.get_figheight()),
            ncols=columns,
            fontsize=6.5,
        )
        legend.set_frame_on(False)
    return figure


def _caption(result: Result, artefact: Mapping[str, Any]) -> str:
    """What the colours mean, and how well the tree agrees with the super-classes."""
    merges, count = np.array(artefact["learnt"]["merges"]), len(artefact["classes"])
    agreements = []
    for name, super_classes in named_levels(result, artefact).items():
        groups = len({*super_classes})
        if 1 < groups < count:
            agreement = ami(super_classes, cut(merges, groups))
            agreements.append(f"{agreement:.2f} with the {groups} super-classes of {name}")
    text = "n = 1 seed, the first that has a tree: no mean, no interval"
    if agreements:
        text += (
            "   |   colours: super-classes   |   adjusted mutual information of the tree, cut into "
            f"as many groups: {'; '.join(agreements)} (1: the same groups, 0: chance)"
        )
    return text


def cut(linkage: NDArray[np.float64], groups: int) -> NDArray[np.int64]:
    """The group of each class, if all merges but the last `groups` - 1 are made.

    Args:
        linkage: merges (C - 1, 4), as of `compute_layout`.

    >>> cut(np.array([[0, 1, 0.1, 2], [2, 3, 0.2, 2], [4, 5, 0.9, 4]]), 2).tolist()
    [4, 4, 5, 5]
    """
    count = len(linkage) + 1
    root = np.arange(count + len(linkage))
    made = linkage[: count - groups, :2].astype(int)
    for node, pair in reversed([*enumerate(made, count)]):
        root[pair] = root[node]  # from the top, so that the roots are known
    return root[:count]


def _super_classes(result: Result, artefact: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The name of a level, and the super-class of each class at that level.

    It is the nearest level that has few enough super-classes to be told apart. If there is none,
    all names are empty.
    """
    for level, super_classes in named_levels(result, artefact).items():
        if 1 < len(set(super_classes)) <= MAX_SUPER_CLASSES:
            return level, super_classes
    return "", [""] * len(artefact["classes"])


def _draw_merges(
    ax: Axes, layout: Layout, colours: Sequence[str], low: float, linewidth: float
) -> None:
    """Draw the branches of each merge, and a line that joins them."""
    lines, line_colours = [], []
    for first, second, merged in layout.merges:
        x = layout.distance[merged]
        for node in (first, second):
            y = layout.position[node]
            lines.append([(max(layout.distance[node], low), y), (x, y)])
            line_colours.append(colours[node])
        lines.append([(x, layout.position[first]), (x, layout.position[second])])
        line_colours.append(colours[merged])
    ax.add_collection(LineCollection(lines, colors=line_colours, linewidths=linewidth))


def _draw_thresholds(ax: Axes, thresholds: Sequence[float], low: float, top: float) -> None:
    """Draw a thin numbered line at the threshold of each level that is within the axis."""
    for level, threshold in enumerate(thresholds):
        if low < threshold < top:
            ax.axvline(threshold, color=GRID, linewidth=0.6, zorder=0)
            ax.text(
                threshold,
                1.002,
                str(level),
                transform=ax.get_xaxis_transform(),
                ha="center",
                fontsize=5.5,
                color=FADED,
            )


def _draw_leaves(ax: Axes, colours: Sequence[str]) -> None:
    """Draw a band at the right that shows the super-classes of the leaves."""
    cells = [[(1.005, y - 0.5), (1.005, y + 0.5)] for y in range(len(colours))]
    band = LineCollection(cells, colors=colours, linewidths=5, transform=ax.get_yaxis_transform())
    band.set(clip_on=False, capstyle="butt")
    ax.add_collection(band, autolim=False)
