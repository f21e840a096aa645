"""The common parts of the plots: figures, their panels, and their captions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from textwrap import wrap

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dmlbench.leaderboard.plots.small_fonts import small_fonts
from dmlbench.leaderboard.style import FADED, STYLE, WIDTH
from dmlbench.study.row_names import is_trained

MAX_HEIGHT = 40.0  # inches; what does not fit goes on in the next picture
PNG_OPTIONS = {"compress_level": 3}  # half the time of 6, Pillow's own, for 9 % more bytes
MAX_PIXELS = 60_000  # the height of a PNG; matplotlib draws no more than 65,535
# Inches from a panel to the names of its axes, with the numbers in between
BELOW, BESIDE = 0.22, 0.42
CAPTION_LETTERS = 125  # of a line
SEPARATOR = "   |   "  # between the parts of a caption
FONT = "font-family: 'DejaVu Sans'"
UNSTEADY = {".png": "Software", ".svg": "Date", ".pdf": "CreationDate"}
"""What matplotlib would write into a file of each kind although the plot is the same."""


def new_figure(height: float) -> Figure:
    """An empty figure as wide as a page; `height` is in inches.

    It has no layout engine: those of matplotlib measure every text several times, and took half of
    the time of a plot. Who fills it says where its panels are; see `add_panel`.
    """
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)
    return figure


def add_panel(figure: Figure, left: float, right: float, top: float, height: float) -> Axes:
    """Axes from `left` to `right`, which begin `top` below the top of `figure`; all in inches."""
    total, width = figure.get_figheight(), right - left
    bottom = total - top - height
    ax = figure.add_axes((left / WIDTH, bottom / total, width / WIDTH, height / total))
    # at fixed places: else matplotlib measures all numbers of an axis, for each format again
    ax.xaxis.set_label_coords(0.5, -BELOW / height)
    ax.yaxis.set_label_coords(-BESIDE / width, 0.5)
    return ax


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
    dpi = min(STYLE["savefig.dpi"], MAX_PIXELS / figure.get_figheight())
    with mpl.rc_context(STYLE), small_fonts():
        for path in paths:
            write = partial(figure.savefig, path, metadata={UNSTEADY[path.suffix]: None}, dpi=dpi)
            if path.suffix == ".png":
                write(pil_kwargs=PNG_OPTIONS)
            else:
                write()
            if path.suffix == ".svg":  # the reader sets the text, and may not have this font
                text = path.read_text("utf-8").replace(FONT, f"{FONT}, Verdana, sans-serif")
                path.write_text(text, "utf-8")


def add_caption(figure: Figure, caption: str) -> None:
    """Write below the panels what the marks mean, into a room of `caption_height`."""
    lines = "\n".join(_caption_lines(caption))
    bottom = 0.06 / figure.get_figheight()
    figure.supxlabel(lines, y=bottom, va="bottom", fontsize=7, color=FADED)


def caption_height(caption: str) -> float:
    """The height in inches that `caption` needs below the panels."""
    return 0.12 + 0.12 * len(_caption_lines(caption))


def _caption_lines(caption: str) -> list[str]:
    """The lines of a caption, broken between its parts if these are short enough."""
    lines = [""]
    for part in caption.split(SEPARATOR):
        joined = f"{lines[-1]}{SEPARATOR}{part}" if lines[-1] else part
        if len(joined) <= CAPTION_LETTERS:
            lines[-1] = joined
        else:
            lines += wrap(part, CAPTION_LETTERS)
    return [line for line in lines if line]


def describe_seeds(rows: pd.DataFrame) -> str:
    """How many seeds the means of a plot are of, for example "n = 3 to 5 seeds".

    Args:
        rows: the rows of the long table that it shows. Runs that failed do not count; nor do
            controls, if it shows losses.

    >>> describe_seeds(pd.DataFrame({"loss": ["htl"] * 2, "seed": [0, 1], "value": [0.5, 0.6]}))
    'n = 2 seeds'
    """
    names = [name for name in ("dataset", "tested_on", "backbone", "loss") if name in rows]
    scored = rows.dropna(subset="value")
    trained = scored[scored["loss"].map(is_trained)]
    counts = (trained if len(trained) else scored).groupby(names)["seed"].nunique()
    return describe_count(counts, "seed")


def describe_count(counts: Collection[int], noun: str) -> str:
    """How many there are of something.

    >>> describe_count([5, 3, 5], "seed"), describe_count([1], "trial")
    ('n = 3 to 5 seeds', 'n = 1 trial')
    """
    low, high = min(counts, default=0), max(counts, default=0)
    return f"n = {f'{low} to ' * (low < high)}{high} {noun}{'s' * (high != 1)}"


@mpl.rc_context(STYLE)
def text_figure(text: str) -> Figure:
    """A figure that holds nothing but `text`."""
    figure = new_figure(0.1 + caption_height(text))
    add_caption(figure, text)
    return figure
