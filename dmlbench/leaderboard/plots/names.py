"""The names of the losses beside their marks, so that no two overlap."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import product

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from dmlbench.leaderboard.plots.figure import new_figure
from dmlbench.leaderboard.style import STYLE, colour
from dmlbench.study.row_names import display_name

LINE_HEIGHT = 0.13  # inches from one name to the next
NAME_SIZE = 6.5  # points
BESIDE = 1.06  # where the names at the right begin, as a multiple of the width of the panel
# Points between a dotted line and its mark, and its name
FROM_MARK, FROM_NAME = 3, 2
# Where a name may be put: points right (or left, if negative) and up from its mark, nearest first.
OFFSETS = sorted(
    product([*range(6, 80, 6), *range(-6, -80, -6)], range(-72, 73, 4)),
    key=lambda offset: (np.hypot(*offset), offset[0] < 0, offset[1]),
)
Points = Mapping[str, tuple[float, float]]
"""Loss -> the point (x, y) that is labelled with its name, in data coordinates."""
Pixels = NDArray[np.float64]
"""Positions on the canvas."""


def label_at_right(ax: Axes, points: Points) -> None:
    """Write the names of the losses to the right of `ax`, in the order of y."""
    if not points:
        return
    losses = sorted(points, key=lambda loss: points[loss][1])
    marks = ax.transData.transform([points[loss] for loss in losses])
    wanted = ax.transAxes.inverted().transform(marks)[:, 1]
    gap = LINE_HEIGHT * _pixels_per_inch(ax) / ax.bbox.height
    names = [(BESIDE, y) for y in spread(wanted, gap)]
    for loss, position in zip(losses, names, strict=True):
        _write_name(ax, loss, points[loss], position, "axes fraction", "left")
    _join(ax, losses, marks, ax.transAxes.transform(names))


def spread(wanted: np.ndarray, gap: float) -> np.ndarray:
    """Move positions apart, as little as possible.

    Args:
        wanted: positions (n,) in [0, 1], in increasing order.
        gap: the least distance between two results, if there is room for it.

    Returns:
        Positions (n,) in [0, 1] with the least sum of squared moves, but for clipping to [0, 1].

    >>> spread(np.array([0.5, 0.5, 0.9]), gap=0.2).round(2).tolist()
    [0.4, 0.6, 0.9]
    """
    count = len(wanted)
    gap = min(gap, 1 / max(count - 1, 1))
    steps = gap * np.arange(count)
    return np.clip(isotonic_regression(wanted - steps).x, 0, 1 - steps[-1]) + steps


def label_nearby(ax: Axes, points: Points) -> None:
    """Write the name of each loss as near to its point as other marks and names allow."""
    if not points:
        return
    dot = _pixels_per_inch(ax) / 72
    marks = ax.transData.transform([*points.values()])
    taken = [np.array([*(mark - 4 * dot), *(mark + 4 * dot)]) for mark in marks]
    ends = []
    for loss, mark in zip(points, marks, strict=True):
        size = 72 * dot * text_width(display_name(loss), NAME_SIZE), NAME_SIZE * 1.2 * dot
        boxes = _name_boxes(mark, size, dot)
        is_free = _is_within(boxes, np.array(ax.bbox.extents)) & ~_overlap(boxes, np.array(taken))
        nearest = int(is_free.argmax())  # the first place if none is free
        taken.append(boxes[nearest])
        offset = OFFSETS[nearest]
        ends.append(mark + np.array(offset) * dot)
        align = "left" if offset[0] > 0 else "right"
        _write_name(ax, loss, points[loss], offset, "offset points", align)
    _join(ax, [*points], marks, np.array(ends))


@cache
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """The width of a line of text in inches; `size` is in points."""
    with mpl.rc_context(STYLE):
        figure = new_figure(1)
        probe = figure.text(0, 0, text, fontsize=size, fontweight=weight)
        return float(probe.get_window_extent().width) / figure.dpi


def _name_boxes(mark: Pixels, size: tuple[float, float], dot: float) -> Pixels:
    """The boxes (n, 4) in pixels of a name at all OFFSETS: left, bottom, right, top.

    Args:
        mark: the point (x, y) that is named.
        size: width and height of the name.
        dot: pixels of a point, which offsets are measured in.
    """
    width, height = size
    right, up = np.array(OFFSETS).T
    left = mark[0] + right * dot - np.where(right < 0, width, 0)
    bottom = mark[1] + up * dot - height / 2
    return np.column_stack([left, bottom, left + width, bottom + height])


def _is_within(boxes: Pixels, frame: Pixels) -> NDArray[np.bool_]:
    """Which `boxes` (n, 4) are within `frame` (4,)."""
    room = np.hstack([boxes[:, :2] - frame[:2], frame[2:] - boxes[:, 2:]])
    return np.asarray((room >= 0).all(axis=1))


def _overlap(boxes: Pixels, others: Pixels) -> NDArray[np.bool_]:
    """Which `boxes` (n, 4) overlap one of `others` (m, 4)."""
    starts = np.maximum(boxes[:, None, :2], others[:, :2])
    ends = np.minimum(boxes[:, None, 2:], others[:, 2:])
    return np.asarray(np.any(np.all(starts < ends, axis=2), axis=1))


def _pixels_per_inch(ax: Axes) -> float:
    figure = ax.get_figure(root=True)
    assert figure
    return figure.dpi


def _write_name(
    ax: Axes,
    loss: str,
    point: tuple[float, float],
    position: tuple[float, float],
    coordinates: str,
    align: str,
) -> None:
    """Write the name of `loss`, which belongs to `point`."""
    ax.annotate(
        display_name(loss),
        point,
        position,
        textcoords=coordinates,
        ha=align,
        va="center",
        fontsize=NAME_SIZE,
        color=0.6 * np.array(to_rgb(colour(loss))),  # pale letters are hard to read
        annotation_clip=False,
    )


def _join(ax: Axes, losses: list[str], marks: Pixels, names: Pixels) -> None:
    """Draw a thin dotted line from each mark (n, 2) to the name at its side.

    They are one artist: matplotlib's own arrows took a third of the time of a plot.
    """
    dot = _pixels_per_inch(ax) / 72
    ways = names - marks
    lengths = np.hypot(*ways.T)
    is_apart = lengths > (FROM_MARK + FROM_NAME) * dot
    ways, lengths = ways[is_apart], lengths[is_apart, None]
    starts = marks[is_apart] + ways * (FROM_MARK * dot / lengths)
    ends = names[is_apart] - ways * (FROM_NAME * dot / lengths)
    # in parts of the panel, so that they stay where they are at any resolution
    lines = ax.transAxes.inverted().transform(np.stack([starts, ends], axis=1).reshape(-1, 2))
    joined = LineCollection(
        [*lines.reshape(-1, 2, 2)],
        colors=[colour(loss) for loss, apart in zip(losses, is_apart, strict=True) if apart],
        linewidths=0.6,
        alpha=0.7,
        linestyles=[(0, (1, 2))],
        transform=ax.transAxes,
        clip_on=False,
    )
    ax.add_collection(joined, autolim=False)
