"""What the plots share: the sheet they are drawn on, and labels that do not overlap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from dmlbench.leaderboard.style import FADED, STYLE, WIDTH, colour
from dmlbench.leaderboard.table import label, panels, recalls

LINE = 0.125  # inches a label
FONT = "font-family: 'DejaVu Sans'"
EDGES = 0.75  # inches of a panel above and below its axes
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
    table: pd.DataFrame, draw: Callable[[Axes, pd.DataFrame, float], None], how: str
) -> Figure:
    """A panel below the other for each data set, backbone and protocol in which a Recall@K was
    scored, filled by draw(axes, rows, height); each has room for the names of its losses. `how`
    tells what the marks mean."""
    scored = table[table["metric"].isin(recalls(table))]
    shown = list(panels(scored))
    heights = [max(2.3, panel.rows["loss"].nunique() * LINE) + EDGES for panel in shown]
    with mpl.rc_context(STYLE):
        figure = sheet(sum(heights) or EDGES)
        if not shown:
            say(figure, "no run has a Recall@K")
            return figure
        say(figure, how)
        grid = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)
        for ax, panel, height in zip(grid.flat, shown, heights, strict=True):
            draw(ax, panel.rows, height)
            ax.set_title(panel.title)
            ax.grid(axis="both")
    return figure


def label_beside(ax: Axes, points: Points, height: float) -> None:
    """Name the point (x, y) of each loss right of `ax`, in the order of y and without overlap, a
    thin line leading there. `height` is the panel's in inches; the limits of `ax` are final."""
    losses = sorted(points, key=lambda loss: points[loss][1])
    low, high = ax.get_ylim()
    wanted = [(points[loss][1] - low) / (high - low) for loss in losses]
    for loss, y in zip(losses, spread(wanted, LINE / (height - EDGES)), strict=True):
        ax.annotate(
            label(loss),
            points[loss],
            (1.06, y),
            textcoords="axes fraction",
            va="center",
            fontsize=6.5,
            color=0.6 * np.array(to_rgb(colour(loss))),  # pale letters are hard to read
            annotation_clip=False,
            arrowprops={
                **{"arrowstyle": "-", "color": colour(loss), "linewidth": 0.6, "alpha": 0.6},
                **{"linestyle": (0, (1, 2)), "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 3},
            },
        )


def spread(wanted: list[float], gap: float) -> np.ndarray:
    """Places in [0, 1] nearest to the rising places `wanted`, at least `gap` apart - or as far
    apart as there is room."""
    count = len(wanted)
    gap = min(gap, 1 / max(count - 1, 1))
    steps = gap * np.arange(count)
    return np.clip(isotonic_regression(np.array(wanted) - steps).x, 0, 1 - steps[-1]) + steps
