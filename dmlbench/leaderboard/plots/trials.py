"""The tuning: the best score against the trials spent, and the settings of the best trials."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dmlbench.leaderboard.choices import Choice, by_panel, short_name
from dmlbench.leaderboard.plots.figure import (
    add_caption,
    add_panel,
    caption_height,
    describe_count,
    new_figure,
    split_by_height,
    text_figure,
)
from dmlbench.leaderboard.plots.names import Points, label_at_right
from dmlbench.leaderboard.plots.stack import draw_panels
from dmlbench.leaderboard.style import FADED, GRID, INK, STYLE, WIDTH, colour
from dmlbench.leaderboard.table import Panel
from dmlbench.study.result_shape import OK
from dmlbench.study.row_names import display_name

NO_TRIALS = "no trial has a validation score"
BEST = 10
"""Trials of a loss whose settings are shown."""
COLUMNS = 2
# Inches. A frame is the place of the parallel axes of one loss.
TITLE, TOP, BOTTOM = 0.3, 0.34, 0.36  # of a block; above and below a frame
FRAME_HEIGHT = 0.95
LEFT, RIGHT = 0.42, 0.3  # beside a frame


def trials(choices: Sequence[Choice]) -> Iterator[Figure]:
    """The best validation score so far against the number of trials: a panel for each data set and
    backbone, a line for each loss. × marks trials that failed or diverged."""
    shown = []
    for (dataset, backbone), panel in by_panel(choices).items():
        rows = pd.DataFrame([row for choice in panel for row in _curve(choice)])
        if len(rows) and rows["best"].notna().any():
            shown.append(Panel(dataset, dataset, backbone, None, rows))
    if not shown:
        yield text_figure(NO_TRIALS)
    caption = (
        f"{_describe_trials(choices)}   |   ● a better trial than all before   |   × a trial that "
        "failed or diverged   |   a score is the mean over the folds of the training classes, "
        "without an interval; no test score is in it"
    )
    yield from draw_panels(shown, _draw_curves, label_at_right, lambda rows: caption)


def _describe_trials(choices: Sequence[Choice]) -> str:
    counts = [len(choice.trials) for choice in choices if choice.trials]
    return f"{describe_count(counts, 'trial')} of each loss"


def _curve(choice: Choice) -> Iterator[dict[str, Any]]:
    """A row for each trial of a loss, in their order: the best score so far, in percent."""
    best = math.nan
    for number, trial in enumerate(sorted(choice.trials, key=lambda t: int(t["trial"])), 1):
        score = trial["best_score"]
        is_better = score is not None and not 100 * score <= best
        best = 100 * score if is_better else best
        yield {
            "loss": choice.loss,
            "metric": choice.metric,
            "spent": number,
            "best": best,
            "is_better": is_better,
            "failed": trial["status"] != OK,
        }


def _draw_curves(ax: Axes, rows: pd.DataFrame) -> Points:
    ends = {}
    for name, curve in rows.dropna(subset="best").groupby("loss", sort=False):
        loss = str(name)
        tint = colour(loss)
        spent, best = curve["spent"].to_numpy(), curve["best"].to_numpy()
        ax.plot(spent, best, drawstyle="steps-post", color=tint, linewidth=1.1, alpha=0.85)
        better, failed = curve["is_better"].to_numpy(), curve["failed"].to_numpy()
        dot: dict[str, Any] = {"linestyle": "none", "clip_on": False, "markersize": 4}
        edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.4}
        ax.plot(spent[better], best[better], marker="o", color=tint, **dot, **edge)
        if failed.any():  # a line without points would count as one at the corner of the figure
            ax.plot(spent[failed], best[failed], marker="x", color=INK, **dot)
        ends[loss] = (float(spent[-1]), float(best[-1]))
    metrics = " / ".join(rows["metric"].unique())
    ax.set(xlabel="trials spent", ylabel=f"best validation {metrics} so far (%)")
    last = int(rows["spent"].max())
    ax.set_xlim(1, max(last, 2))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.margins(y=0.06)
    return ends


class Scale(NamedTuple):
    """One of the parallel axes: a searched value, or the score."""

    name: str
    low: float
    high: float
    log: bool

    def place(self, value: float | None) -> float:
        """Where `value` is, from 0 (low) to 1 (high); NaN for None."""
        if value is None:
            return math.nan
        if self.high <= self.low:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def trial_settings(choices: Sequence[Choice]) -> Iterator[Figure]:
    """The settings of the best trials of each loss on parallel axes, one for each searched value
    and one for the validation score. A thick line is the chosen trial."""
    panels = {
        " · ".join(names): scored
        for names, panel in by_panel(choices).items()
        if (scored := [choice for choice in panel if _best_trials(choice)])
    }
    if not panels:
        yield text_figure(NO_TRIALS)
    heights = [TITLE + -(-len(panel) // COLUMNS) * _row_height() for panel in panels.values()]
    for part in split_by_height(heights):
        yield _draw_blocks([*panels.items()][part], heights[part])


def _row_height() -> float:
    return TOP + FRAME_HEIGHT + BOTTOM


def _best_trials(choice: Choice) -> list[Mapping[str, Any]]:
    """The best trials of a loss that succeeded, the best first."""
    scored = [trial for trial in choice.trials if trial["best_score"] is not None]
    return sorted(scored, key=lambda t: (-t["best_score"], t["trial"]))[:BEST]


@mpl.rc_context(STYLE)
def _draw_blocks(
    panels: Sequence[tuple[str, Sequence[Choice]]], heights: Sequence[float]
) -> Figure:
    """Blocks one below the other, each on one pair of axes in inches: matplotlib's own axes take
    ten times as long."""
    shown = [choice for _, choices in panels for choice in choices]
    caption = (
        f"{_describe_trials(shown)}: the best {BEST} are shown   |   thick: the chosen one   |   "
        "right: validation score (%), the mean over the folds of the training classes, without an "
        "interval"
    )
    figure = new_figure(sum(heights) + caption_height(caption))
    add_caption(figure, caption)
    below = 0.0
    for (title, choices), height in zip(panels, heights, strict=True):
        ax = add_panel(figure, 0, WIDTH, below, height)
        below += height
        ax.set(xlim=(0, WIDTH), ylim=(height, 0))
        ax.set_axis_off()
        ax.text(0.07, 0.06, title, va="top", fontsize=9, fontweight="bold")
        for index, choice in enumerate(choices):
            row, column = divmod(index, COLUMNS)
            left = column * WIDTH / COLUMNS + LEFT
            right = (column + 1) * WIDTH / COLUMNS - RIGHT
            top = TITLE + row * _row_height() + TOP
            _draw_loss(ax, choice, (left, right, top, top + FRAME_HEIGHT))
    return figure


def _draw_loss(ax: Axes, choice: Choice, frame: tuple[float, float, float, float]) -> None:
    """The parallel axes of one loss in `frame`: left, right, top and bottom."""
    left, right, top, bottom = frame
    best = _best_trials(choice)
    scales = _scales(choice, best)
    x = np.linspace(left, right, len(scales)) if len(scales) > 1 else np.array([right])
    tint, chosen = colour(choice.loss), (choice.chosen or {}).get("trial")
    size = min(7.5, 200 / len(choice.loss))
    name = display_name(choice.loss)
    ax.text(left, top - 0.2, name, fontsize=size, fontweight="bold", color=tint)
    ax.add_collection(
        LineCollection([[(p, top), (p, bottom)] for p in x], colors=GRID, linewidths=0.9)
    )
    for number, (position, scale) in enumerate(zip(x, scales, strict=True)):
        small: dict[str, Any] = {"ha": "center", "fontsize": 5.5, "color": FADED}
        ax.text(position, top - 0.03, _short_number(scale.high), va="bottom", **small)
        ax.text(position, bottom + 0.03, _short_number(scale.low), va="top", **small)
        lower = 0.1 * (number % 2)  # neighbours would overlap
        ax.text(
            position, bottom + 0.13 + lower, scale.name, ha="center", va="top", fontsize=5.5,
            color=INK,
        )  # fmt: skip
    for trial in reversed(best):  # the best on top
        values = {short_name(key): value for key, value in trial["options"].items()}
        values[scales[-1].name] = 100 * trial["best_score"]
        y = [bottom - (bottom - top) * s.place(values.get(s.name)) for s in scales]
        is_chosen = trial["trial"] == chosen
        width, alpha = (1.8, 1.0) if is_chosen else (0.7, 0.45)
        mark: dict[str, Any] = {"marker": "o", "markersize": 2.6 if is_chosen else 1.6}
        ax.plot(x, y, color=tint, linewidth=width, alpha=alpha, clip_on=False, **mark)


def _scales(choice: Choice, best: Sequence[Mapping[str, Any]]) -> list[Scale]:
    """The axes of a loss: those of its search space, as far as its best trials leave it, and the
    score."""
    scales = []
    for name in choice.searched:
        space = choice.tuning["space"]
        low, high, kind = space.get(name) or space[f"recipe.{name}"]
        options = [{short_name(k): v for k, v in trial["options"].items()} for trial in best]
        values = [low, high, *(option[name] for option in options if name in option)]
        log = kind == "log" and min(values) > 0
        scales.append(Scale(name, min(values), max(values), log))
    scores = [100 * trial["best_score"] for trial in best]
    return [*scales, Scale(choice.metric, min(scores), max(scores), log=False)]


def _short_number(value: float) -> str:
    return f"{value:.4g}"
