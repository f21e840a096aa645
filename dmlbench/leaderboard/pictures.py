"""The plots as files. A plot that cannot be drawn costs only itself."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from dmlbench.leaderboard.plots.figure import save, text_figure
from dmlbench.utils.files import keep_only, replacing
from dmlbench.utils.text import error_reason

FORMATS = ("png", "svg")


class Picture(NamedTuple):
    """A plot, or a part of one that is too large for one picture."""

    plot: str
    """"recall", "trees/letters/tiny/htl", ..."""
    name: str
    """The same, or with a number: "recall-2"."""
    svg: Path


def draw_pictures(
    plot: str, figures: Callable[[], Iterable[Figure]], folder: Path
) -> Iterator[Picture]:
    """Write the figures of `plot`: `<plot>.png` and `.svg`, then `<plot>-2.png`, ...

    Args:
        figures: makes them, one at a time: a figure needs much memory.
    """
    for number, figure in enumerate(figures(), 1):
        name = plot if number == 1 else f"{plot}-{number}"
        paths = [folder / f"{name}.{suffix}" for suffix in FORMATS]
        with ExitStack() as stack:
            save(figure, [stack.enter_context(replacing(path)) for path in paths])
        yield Picture(plot, name, paths[-1])


def draw_all(
    plots: dict[str, Callable[[], Iterable[Figure]]], folder: Path
) -> tuple[list[Picture], dict[str, str]]:
    """Write all `plots`, and remove the pictures of an earlier call that have no successor.

    A plot that cannot be drawn is a picture that says why.

    Returns:
        The pictures, and the plots that could not be drawn: name -> reason.

    Raises:
        OSError: a file cannot be written.
    """
    pictures: list[Picture] = []
    failed: dict[str, str] = {}
    for plot, figures in plots.items():
        try:
            drawn = [*draw_pictures(plot, figures, folder)]
        except OSError:
            raise
        except Exception as error:  # whatever a library makes of the texts and numbers of others
            traceback.print_exc()
            failed[plot] = f"{type(error).__name__}: {error_reason(error)}"
            reason = f"{plot} could not be drawn: {failed[plot]}"
            drawn = [*draw_pictures(plot, partial(_say, reason), folder)]
        pictures += drawn
    kept = {picture.svg.with_suffix(f".{suffix}") for picture in pictures for suffix in FORMATS}
    keep_only(kept, folder)
    return pictures, failed


def _say(text: str) -> Iterator[Figure]:
    yield text_figure(text)
