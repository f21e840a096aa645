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

from dmlbench.leaderboard.plots.figure import new_figure, text_figure
from dmlbench.leaderboard.style import COLOURS, FADED, GRID, INK, STYLE, WIDTH, colour
from dmlbench.leaderboard.table import Result
from dmlbench.utils.files import read_json_if_whole
from dmlbench.utils.text import literal

MAX_LEAVES = 1000
"""A tree of more classes is cut: only its last merges are drawn."""
MAX_NAMED = 160
"""A tree of more classes is drawn without their names."""
MAX_SUPER_CLASSES = 32
"""More super-classes cannot be told apart by colour."""
LONGEST_CLASS, LONGEST_SUPER_CLASS = 36, 26  # letters of a name
LINE_HEIGHT = 0.085  # inches from one class name to the next


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
        if artefact := _read_artefact(result):
            return _draw(result, artefact)
    failed = {result.run["status"] for result in results} - {"ok"}
    reason = ", ".join(sorted(failed)).replace("_", " ") or "none was kept"
    return text_figure(f"{_title(results[0])}: no tree: {reason}")


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


def _read_artefact(result: Result) -> Mapping[str, Any] | None:
    """What the loss has learnt; None unless it is a tree of this training."""
    artefact = read_json_if_whole(result.files.loss_artefact)
    if not artefact or artefact["train_key"] != result.planned["train_key"]:
        return None
    return artefact if artefact["learnt"].get("merges") else None


def _title(result: Result) -> str:
    return " · ".join(result.planned[name] for name in ("dataset", "backbone", "loss"))


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
    rows = -(-len(names) // columns) if level else 0
    height = LINE_HEIGHT * len(classes) if named else 7.0
    figure = new_figure(height + 0.9 + 0.15 * rows)
    ax = figure.subplots()
    top = layout.distance[-1]
    least = min(layout.distance[node] for *_, node in layout.merges)
    low = max(0.0, least - 0.06 * (top - least))  # where the lines of the leaves start
    _draw_merges(ax, layout, node_colours, low, 0.8 if named else 0.45)
    _draw_thresholds(ax, learnt.get("thresholds", []), low, top)
    ax.set(xlim=(top + 0.02 * (top - low), low), ylim=(len(layout.leaves) - 0.5, -0.5))
    ax.set_xlabel("distance at which classes were merged; numbered lines: thresholds of the levels")
    part = "" if len(layout.leaves) == len(classes) else f", the last {len(layout.leaves)} groups"
    seed = result.planned["seed"]
    ax.set_title(f"{_title(result)}, seed {seed}: {len(classes):,} classes{part}", pad=14)
    _draw_leaves(ax, [node_colours[leaf] for leaf in layout.leaves])
    ax.set_yticks([])
    if named:
        ax.yaxis.tick_right()
        leaf_names = [classes[leaf][:LONGEST_CLASS] for leaf in layout.leaves]
        ax.set_yticks(range(len(classes)), leaf_names)
        ax.tick_params(axis="y", length=0, labelsize=5, pad=7)
        for leaf, text in zip(layout.leaves, ax.get_yticklabels(), strict=True):
            text.set_color(node_colours[leaf])
    ax.spines[["left", "right"]].set_visible(False)
    if level:
        # `tints` has one colour more, of nodes of several super-classes
        patches = [Patch(color=tint, label=name) for tint, name in zip(tints, labels, strict=False)]
        legend = figure.legend(
            handles=patches, title=level, loc="outside lower center", ncols=columns, fontsize=6.5
        )
        legend.set_frame_on(False)
    return figure


def _super_classes(result: Result, artefact: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The name of a level, and the super-class of each class at that level.

    It is the nearest level that has few enough super-classes to be told apart. If there is none,
    all names are empty.
    """
    levels = result.run["settings"]["dataset"]["facts"]["levels"]
    for level, super_classes in zip(levels, artefact["super_classes"].values(), strict=True):
        if 1 < len(set(super_classes)) <= MAX_SUPER_CLASSES:
            return literal(level), [*map(literal, super_classes)]
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
