"""The tree of the training classes that a loss has learnt: which of them it holds for near."""

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

from dmlbench.files import read_json_if_whole
from dmlbench.leaderboard.plots.figure import say, sheet
from dmlbench.leaderboard.style import COLOURS, FADED, GRID, INK, STYLE, WIDTH, colour
from dmlbench.leaderboard.table import Result

LEAVES = 1000  # at most: of more classes, the last merges are drawn
NAMED = 160  # classes whose names are drawn
LONGEST = {"class": 36, "super-class": 26}  # letters of a name
SUPER_CLASSES = 32  # that colours can tell apart
LINE = 0.085  # inches a named class


class Layout(NamedTuple):
    """A tree as it is drawn. Its nodes are numbered as scipy does: the classes, then the merges."""

    leaves: list[int]
    """From top to bottom: classes, or what was united before the merges that are drawn."""
    joints: list[tuple[int, int, int]]
    """Two nodes, and the one that unites them."""
    height: NDArray[np.float64]
    place: NDArray[np.float64]
    """Of each node: the distance at which it was united, and how far down it stands."""
    group: NDArray[np.int64]
    """Super-class of all classes of each node; -1 where they are of several."""


def tree(results: Sequence[Result]) -> Figure:
    """The tree of the first of `results`, the seeds of a cell, that has one: the distances at which
    classes were united, in the colours of their super-classes, over the thresholds of the levels.
    Where none has, the picture says so."""
    with mpl.rc_context(STYLE):
        for result in results:
            if artefact := _artefact(result):
                return _drawn(result, artefact)
        figure = sheet(0.5)
        failed = {result.run["status"] for result in results} - {"ok"}
        why = ", ".join(sorted(failed)).replace("_", " ") or "none was kept"
        say(figure, f"{_cell(results[0])}: no tree: {why}")
        return figure


def layout(merges: NDArray[np.float64], groups: NDArray[np.int64], most: int) -> Layout:
    """Where the nodes of scipy's linkage `merges` (C - 1, 4) stand; `groups` (C,) are the classes'
    super-classes. Of more than `most` leaves, the last merges. (scipy's own drawing recurses, once
    a level of the tree, and single linkage makes a thousand of them.)"""
    count, nodes = len(groups), len(groups) + len(merges)
    pairs = dict(enumerate(map(tuple, merges[:, :2].astype(int).tolist()), count))
    sizes = np.zeros((nodes, groups.max() + 1), dtype=np.int64)
    sizes[np.arange(count), groups] = 1
    for joint, (one, other) in pairs.items():
        sizes[joint] = sizes[one] + sizes[other]
    shown = {joint: pair for joint, pair in pairs.items() if joint > nodes - most}
    leaves, todo = [], [nodes - 1]
    while todo:
        node = todo.pop()
        if node in shown:
            todo += shown[node]
        else:
            leaves.append(node)
    place = np.zeros(nodes)
    place[leaves] = np.arange(len(leaves))
    for joint, (one, other) in shown.items():
        place[joint] = (place[one] + place[other]) / 2
    return Layout(
        leaves,
        [(one, other, joint) for joint, (one, other) in shown.items()],
        np.concatenate([np.zeros(count), merges[:, 2]]),
        place,
        np.where(sizes.max(axis=1) == sizes.sum(axis=1), sizes.argmax(axis=1), -1),
    )


def _artefact(result: Result) -> Mapping[str, Any] | None:
    """What the loss has learnt, if that is a tree, and of this training."""
    found = read_json_if_whole(result.folder / "artefacts" / "loss.json")
    if not found or found["train_key"] != result.plan["train_key"]:
        return None
    return found if found["learnt"].get("merges") else None


def _cell(result: Result) -> str:
    return " · ".join(result.plan[name] for name in ("dataset", "backbone", "loss"))


def _drawn(result: Result, artefact: Mapping[str, Any]) -> Figure:
    classes, learnt = artefact["classes"], artefact["learnt"]
    level, of_class = _super_classes(result, artefact)
    names, groups = np.unique(of_class, return_inverse=True)
    shown = layout(np.array(learnt["merges"]), groups, LEAVES)
    known = [*COLOURS.values()][: len(names)] if level else [INK]
    tints = [*known, *map(colour, names[len(known) :]), FADED]
    ink = [tints[group] for group in shown.group]

    named = len(shown.leaves) == len(classes) <= NAMED
    words = [str(name)[: LONGEST["super-class"]] for name in names]
    columns = min(5, int(WIDTH / (0.4 + 0.055 * max(map(len, words)))))
    rows = -(-len(names) // columns) if level else 0
    figure = sheet((LINE * len(classes) if named else 7.0) + 0.9 + 0.15 * rows)
    ax = figure.subplots()
    top = shown.height[-1]
    least = min(shown.height[joint] for *_, joint in shown.joints)
    low = max(0.0, least - 0.06 * (top - least))  # where the leaves stand
    lines, colours = [], []
    for one, other, joint in shown.joints:
        at = shown.height[joint]
        for node in (one, other):
            y = shown.place[node]
            lines.append([(max(shown.height[node], low), y), (at, y)])
            colours.append(ink[node])
        lines.append([(at, shown.place[one]), (at, shown.place[other])])
        colours.append(ink[joint])
    ax.add_collection(LineCollection(lines, colors=colours, linewidths=0.8 if named else 0.45))
    _thresholds(ax, learnt.get("thresholds", []), low, top)
    ax.set(xlim=(top + 0.02 * (top - low), low), ylim=(len(shown.leaves) - 0.5, -0.5))
    ax.set_xlabel("distance at which classes were united; numbered lines: the levels' thresholds")
    part = "" if len(shown.leaves) == len(classes) else f", the last {len(shown.leaves)} groups"
    ax.set_title(
        f"{_cell(result)}, seed {result.plan['seed']}: {len(classes):,} classes{part}", pad=14
    )
    _leaves(ax, [ink[leaf] for leaf in shown.leaves])
    ax.set_yticks([])
    if named:
        ax.yaxis.tick_right()
        ax.set_yticks(
            range(len(classes)), [classes[leaf][: LONGEST["class"]] for leaf in shown.leaves]
        )
        ax.tick_params(axis="y", length=0, labelsize=5, pad=7)
        for leaf, text in zip(shown.leaves, ax.get_yticklabels(), strict=True):
            text.set_color(ink[leaf])
    ax.spines[["left", "right"]].set_visible(False)
    if level:
        patches = [Patch(color=tint, label=word) for tint, word in zip(tints, words, strict=False)]
        legend = figure.legend(
            handles=patches, title=level, loc="outside lower center", ncols=columns, fontsize=6.5
        )
        legend.set_frame_on(False)
    return figure


def _super_classes(result: Result, artefact: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Name of the nearest level of super-classes that has few enough to be told apart, and the
    super-class of each class."""
    names = result.run["settings"]["dataset"]["facts"]["levels"]
    for name, groups in zip(names, artefact["super_classes"].values(), strict=True):
        if 1 < len(set(groups)) <= SUPER_CLASSES:
            return name, groups
    return "", [""] * len(artefact["classes"])


def _thresholds(ax: Axes, thresholds: Sequence[float], low: float, top: float) -> None:
    """A thin line, with its number, at each level's threshold that is within the axis."""
    for level, at in enumerate(thresholds):
        if low < at < top:
            ax.axvline(at, color=GRID, linewidth=0.6, zorder=0)
            across = ax.get_xaxis_transform()
            ax.text(at, 1.002, str(level), transform=across, ha="center", fontsize=5.5, color=FADED)


def _leaves(ax: Axes, colours: Sequence[str]) -> None:
    """A band of the leaves' super-classes beside them."""
    cells = [[(1.005, y - 0.5), (1.005, y + 0.5)] for y in range(len(colours))]
    band = LineCollection(cells, colors=colours, linewidths=5, transform=ax.get_yaxis_transform())
    band.set(clip_on=False, capstyle="butt")
    ax.add_collection(band, autolim=False)
