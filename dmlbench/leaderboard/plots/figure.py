"""What the plots share: the sheet they are drawn on, and names that do not overlap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox, BboxBase
from scipy.optimize import isotonic_regression

from dmlbench.leaderboard.style import FADED, STYLE, WIDTH, colour
from dmlbench.leaderboard.table import label, panels, recalls

LINE = 0.13  # inches a name has below the one above
NAME = 6.5  # points
PANEL = 3.8  # inches a panel, unless it has more names than fit
FONT = "font-family: 'DejaVu Sans'"
# Where a name may stand: points from its mark to the right or left and up, the nearest first.
PLACES = sorted(
    product([*range(6, 80, 6), *range(-6, -80, -6)], range(-72, 73, 4)),
    key=lambda place: (np.hypot(*place), place[0] < 0, place[1]),
)
Points = Mapping[str, tuple[float, float]]


def sheet(height: float) -> Figure:
    """An empty figure as wide as a page, `height` in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as `path`'s suffix says; equal figures give equal files."""
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    with mpl.rc_context(STYLE):
        figure.savefig(path, metadata=metadata)
    if path.suffix == ".svg":  # its text is set where it is read, maybe without this font
        text = path.read_text("utf-8").replace(FONT, f"{FONT}, Verdana, sans-serif")
        path.write_text(text, "utf-8")


def say(figure: Figure, how: str) -> None:
    """What its marks mean, below the panels."""
    figure.supxlabel(how, fontsize=7, color=FADED)


def stack(
    table: pd.DataFrame,
    draw: Callable[[Axes, pd.DataFrame], Points],
    name: Callable[[Axes, Points], None],
    how: str,
) -> Figure:
    """A panel below the other for each data set, backbone and protocol in which a Recall@K was
    scored: `draw` fills it, `name` names the losses at the points that `draw` returns. `how` tells
    what the marks mean."""
    shown = list(panels(table[table["metric"].isin(recalls(table))]))
    heights = [max(PANEL, 1 + panel.rows["loss"].nunique() * LINE) for panel in shown]
    with mpl.rc_context(STYLE):
        figure = sheet(sum(heights) or 1)
        if not shown:
            say(figure, "no run has a Recall@K")
            return figure
        say(figure, how)
        grid = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)
        points = []
        for ax, panel in zip(grid.flat, shown, strict=True):
            points.append(draw(ax, panel.rows))
            ax.set_title(panel.title)
            ax.grid(axis="both")
        figure.draw_without_rendering()  # gives the panels their sizes
        for ax, named in zip(grid.flat, points, strict=True):
            name(ax, named)
    return figure


def name_beside(ax: Axes, points: Points) -> None:
    """Name the point (x, y) of each loss right of `ax`, in the order of y."""
    losses = sorted(points, key=lambda loss: points[loss][1])
    pixels = ax.transData.transform([points[loss] for loss in losses])
    wanted = ax.transAxes.inverted().transform(pixels)[:, 1]
    gap = LINE * _inch(ax) / ax.bbox.height
    for loss, y in zip(losses, spread(wanted, gap), strict=True):
        _name(ax, loss, points[loss], (1.06, y), "axes fraction", "left")


def spread(wanted: np.ndarray, gap: float) -> np.ndarray:
    """Places in [0, 1] nearest to the rising places `wanted`, at least `gap` apart - or as far
    apart as there is room."""
    count = len(wanted)
    gap = min(gap, 1 / max(count - 1, 1))
    steps = gap * np.arange(count)
    return np.clip(isotonic_regression(wanted - steps).x, 0, 1 - steps[-1]) + steps


def name_near(ax: Axes, points: Points) -> None:
    """Name the point (x, y) of each loss as near to it as neither marks nor other names stand."""
    dot = _inch(ax) / 72
    marks = {loss: ax.transData.transform(point) for loss, point in points.items()}
    taken = [Bbox.from_extents(*(mark - 4 * dot), *(mark + 4 * dot)) for mark in marks.values()]
    for loss, mark in marks.items():
        size = _size(ax, loss)
        free = (
            place
            for place in PLACES
            if _within(box := _box(mark, size, place, dot), ax.bbox)
            and not box.count_overlaps(taken)
        )
        place = next(free, PLACES[0])
        taken.append(_box(mark, size, place, dot))
        _name(ax, loss, points[loss], place, "offset points", "left" if place[0] > 0 else "right")


def _size(ax: Axes, loss: str) -> tuple[float, float]:
    """Width and height of a name in pixels."""
    probe = ax.text(0, 0, label(loss), fontsize=NAME)
    box = probe.get_window_extent()
    probe.remove()
    return box.width, box.height


def _box(mark: np.ndarray, size: tuple[float, float], place: tuple[int, int], dot: float) -> Bbox:
    """Of a name that stands at `place`, in pixels."""
    width, height = size
    left = mark[0] + place[0] * dot - (width if place[0] < 0 else 0)
    return Bbox.from_bounds(left, mark[1] + place[1] * dot - height / 2, width, height)


def _within(box: BboxBase, frame: BboxBase) -> bool:
    return bool(np.all(frame.min <= box.min) and np.all(box.max <= frame.max))


def _inch(ax: Axes) -> float:
    """In pixels."""
    figure = ax.get_figure(root=True)
    assert figure
    return figure.dpi


def _name(
    ax: Axes,
    loss: str,
    point: tuple[float, float],
    place: tuple[float, float],
    coordinates: str,
    align: str,
) -> None:
    """The name of `loss`, and a thin line from there to its point."""
    ax.annotate(
        label(loss),
        point,
        place,
        textcoords=coordinates,
        ha=align,
        va="center",
        fontsize=NAME,
        color=0.6 * np.array(to_rgb(colour(loss))),  # pale letters are hard to read
        annotation_clip=False,
        arrowprops={
            **{"arrowstyle": "-", "color": colour(loss), "linewidth": 0.6, "alpha": 0.7},
            **{"linestyle": (0, (1, 2)), "relpos": (float(align == "right"), 0.5)},
            **{"shrinkA": 1, "shrinkB": 3},
        },
    )
