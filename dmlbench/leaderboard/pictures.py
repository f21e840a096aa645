"""The plots as files. A plot that cannot be drawn costs only itself."""

from __future__ import annotations

import multiprocessing
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from dmlbench.leaderboard.plots.figure import save, text_figure
from dmlbench.utils.errors import UserError
from dmlbench.utils.files import keep_only, replacing
from dmlbench.utils.text import error_reason
from dmlbench.utils.workers import exit_with_parent

FORMATS = ("png", "svg", "pdf")

Figures = Callable[[], Iterable[Figure]]
"""Makes the figures of a plot, one at a time: a figure needs much memory."""


class Picture(NamedTuple):
    """A plot, or a part of one that is too large for one picture."""

    plot: str
    """"recall", "trees/letters/tiny/htl", ..."""
    name: str
    """The same, or with a number: "recall-2"."""
    svg: Path


class Drawn(NamedTuple):
    """What became of a plot."""

    pictures: list[Picture]
    reason: str | None
    """Why it could not be drawn; its picture says so."""
    trace: str
    """Where that was."""


def draw_pictures(plot: str, figures: Figures, folder: Path) -> Iterator[Picture]:
    """Write the figures of `plot`: `<plot>.png`, `.svg` and `.pdf`, then `<plot>-2.png`, ..."""
    for number, figure in enumerate(figures(), 1):
        name = plot if number == 1 else f"{plot}-{number}"
        paths = [folder / f"{name}.{suffix}" for suffix in FORMATS]
        with ExitStack() as stack:
            save(figure, [stack.enter_context(replacing(path)) for path in paths])
        yield Picture(plot, name, folder / f"{name}.svg")


Drawings = tuple[list[Picture], dict[str, str]]
"""The pictures in the order of the plots, and the plots that could not be drawn: name -> reason."""


@contextmanager
def drawing(
    plots: Mapping[str, Figures], folder: Path, workers: int = 1
) -> Iterator[Callable[[], Drawings]]:
    """Write all `plots`, and remove the pictures of an earlier call that have no successor.

    A plot that cannot be drawn is a picture that says why.

    Args:
        workers: processes that draw while the caller does something else. With 1, the caller draws.
            With more, `plots` are sent to them, so their functions must be importable: no lambda.

    Yields:
        A function that waits until all pictures are there. It raises OSError if a file cannot be
        written.
    """
    if workers == 1:
        yield lambda: _finish(plots, map(_draw_plot, plots, plots.values(), repeat(folder)), folder)
        return
    # spawn: the caller may have threads (pyarrow), and a fork with threads may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=exit_with_parent) as pool:
        try:
            drawn = pool.map(_draw_plot, plots, plots.values(), repeat(folder))
            yield lambda: _finish(plots, drawn, folder)
        except BrokenProcessPool:
            raise UserError(
                "A process that drew the plots was killed: often the machine has too little "
                "memory. DMLBENCH_CORES=1 draws them one after the other."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)  # after an error, the others need not be drawn


def draw_all(plots: Mapping[str, Figures], folder: Path, workers: int = 1) -> Drawings:
    """Write all `plots`, and wait for them; see `drawing`."""
    with drawing(plots, folder, workers) as finish:
        return finish()


def _finish(plots: Iterable[str], drawn: Iterable[Drawn], folder: Path) -> Drawings:
    pictures: list[Picture] = []
    failed: dict[str, str] = {}
    for name, plot in zip(plots, drawn, strict=True):
        sys.stderr.write(plot.trace)
        pictures += plot.pictures
        if plot.reason:
            failed[name] = plot.reason
    kept = {picture.svg.with_suffix(f".{suffix}") for picture in pictures for suffix in FORMATS}
    keep_only(kept, folder)
    return pictures, failed


def _draw_plot(plot: str, figures: Figures, folder: Path) -> Drawn:
    try:
        return Drawn([*draw_pictures(plot, figures, folder)], None, "")
    except OSError:
        raise
    except Exception as error:  # whatever a library makes of the texts and numbers of others
        reason = f"{type(error).__name__}: {error_reason(error)}"
        text = f"{plot} could not be drawn: {reason}"
        return Drawn(
            [*draw_pictures(plot, partial(_say, text), folder)], reason, traceback.format_exc()
        )


def _say(text: str) -> Iterator[Figure]:
    yield text_figure(text)
