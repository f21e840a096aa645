"""The common parts of the plots: figures, captions, and names that do not overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from textwrap import wrap

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from dmlbench.leaderboard.style import FADED, STYLE, WIDTH, colour
from dmlbench.leaderboard.table import Panel, panels, recalls
from dmlbench.study.row_names import display_name

LINE_HEIGHT = 0.13  # inches from one name to the next
NAME_SIZE = 6.5  # points
PANEL_HEIGHT = 3.8  # inches; a panel with more names than fit is higher
MAX_HEIGHT = 40.0  # inches; what does not fit goes on in the next picture
MAX_PIXELS = 60_000  # the height of a PNG; matplotlib draws no more than 65,535
FONT = "font-family: 'DejaVu Sans'"
# Where a name may be put: points right (or left, if negative) and up from its mark, nearest first.
OFFSETS = sorted(
    product([*range(6, 80, 6), *range(-6, -80, -6)], range(-72, 73, 4)),
    key=lambda offset: (np.hypot(*offset), offset[0] < 0, offset[1]),
)
Points = Mapping[str, tuple[float, float]]
"""Loss -> the point (x, y) that is labelled with its name, in data coordinates."""
Pixels = NDArray[np.float64]
"""Positions on the canvas."""


def new_figure(height: float) -> Figure:
    """An empty figure as wide as a page; `height` is in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def split_by_height(heights: Sequence[float]) -> Iterator[slice]:
    """The parts that fit into one picture each, in their order.

    >>> list(split_by_height([25.0, 10.0, 10.0, 99.0]))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    start, total = 0, 0.0
    for index, height in enumerate(heights):
        total += height
        if index > start and total > MAX_HEIGHT:
            yield slice(start, index)
            start, total = index, height
    if start < len(heights):
        yield slice(start, len(heights))


def save(figure: Figure, paths: Sequence[Path]) -> None:
    """Write `figure` in the formats of the suffixes of `paths`. Equal figures give equal files."""
    with mpl.rc_context(STYLE):
        if figure.get_layout_engine():  # lay out once: matplotlib would do it twice for each format
            figure.draw_without_rendering()
            figure.set_layout_engine(None)
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            dpi = min(STYLE["savefig.dpi"], MAX_PIXELS / figure.get_figheight())
            figure.savefig(path, metadata=metadata, dpi=dpi)
            if path.suffix == ".svg":  # the reader sets the text, and may not have this font
                text = path.read_text("utf-8").replace(FONT, f"{FONT}, Verdana, sans-serif")
                path.write_text(text, "utf-8")


def add_caption(figure: Figure, caption: str) -> None:
    """Write below the panels what the marks mean."""
    figure.supxlabel(caption, fontsize=7, color=FADED)


@mpl.rc_context(STYLE)
def text_figure(text: str) -> Figure:
    """A figure that holds nothing but `text`."""
    lines = wrap(text, 120)
    figure = new_figure(0.4 + 0.12 * len(lines))
    add_caption(figure, "\n".join(lines))
    return figure


def stack_panels(
    table: pd.DataFrame,
    draw: Callable[[Axes, pd.DataFrame], Points],
    label: Callable[[Axes, Points], None],
    caption: str,
) -> Iterator[Figure]:
    """Figures with one panel for each data set, backbone and protocol that has a Recall@K.

    Args:
        table: the long table.
        draw: fills a panel with its rows, and returns the points to label.
        label: writes the names of the losses at these points.
        caption: what the marks mean.
    """
    shown = list(panels(table[table["metric"].isin(recalls(table))]))
    heights = [max(PANEL_HEIGHT, 1 + panel.rows["loss"].nunique() * LINE_HEIGHT) for panel in shown]
    if not shown:
        yield text_figure("no run has a Recall@K")
    for part in split_by_height(heights):
        yield draw_stack(shown[part], heights[part], draw, label, caption)


@mpl.rc_context(STYLE)
def draw_stack(
    shown: Sequence[Panel],
    heights: Sequence[float],
    draw: Callable[[Axes, pd.DataFrame], Points],
    label: Callable[[Axes, Points], None],
    caption: str,
) -> Figure:
    """A figure with the panels `shown` one below the other; see `stack_panels`."""
    figure = new_figure(sum(heights))
    add_caption(figure, caption)
    grid = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)
    points = []
    for ax, panel in zip(grid.flat, shown, strict=True):
        points.append(draw(ax, panel.rows))
        ax.set_title(panel.title)
        ax.grid(axis="both")
    figure.draw_without_rendering()  # gives the panels their sizes
    for ax, panel_points in zip(grid.flat, points, strict=True):
        label(ax, panel_points)
    return figure


def label_at_right(ax: Axes, points: Points) -> None:
    """Write the names of the losses to the right of `ax`, in the order of y."""
    losses = sorted(points, key=lambda loss: points[loss][1])
    pixels = ax.transData.transform([points[loss] for loss in losses])
    wanted = ax.transAxes.inverted().transform(pixels)[:, 1]
    gap = LINE_HEIGHT * _pixels_per_inch(ax) / ax.bbox.height
    for loss, y in zip(losses, spread(wanted, gap), strict=True):
        _write_name(ax, loss, points[loss], (1.06, y), "axes fraction", "left")


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
    dot = _pixels_per_inch(ax) / 72
    marks = {loss: ax.transData.transform(point) for loss, point in points.items()}
    taken = [np.array([*(mark - 4 * dot), *(mark + 4 * dot)]) for mark in marks.values()]
    for loss, mark in marks.items():
        boxes = _name_boxes(mark, _name_size(ax, loss), dot)
        is_free = _is_within(boxes, np.array(ax.bbox.extents)) & ~_overlap(boxes, np.array(taken))
        nearest = int(is_free.argmax())  # the first place if none is free
        taken.append(boxes[nearest])
        offset = OFFSETS[nearest]
        align = "left" if offset[0] > 0 else "right"
        _write_name(ax, loss, points[loss], offset, "offset points", align)


def _name_size(ax: Axes, loss: str) -> tuple[float, float]:
    """Width and height of a name in pixels."""
    probe = ax.text(0, 0, display_name(loss), fontsize=NAME_SIZE)
    box = probe.get_window_extent()
    probe.remove()
    return box.width, box.height


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
    """Write the name of `loss`, with a thin line from it to its point."""
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
        arrowprops={
            "arrowstyle": "-",
            "color": colour(loss),
            "linewidth": 0.6,
            "alpha": 0.7,
            "linestyle": (0, (1, 2)),
            "relpos": (float(align == "right"), 0.5),
            "shrinkA": 1,
            "shrinkB": 3,
        },
    )
