"""What the leaderboard's page is made of, before it becomes Markdown or HTML, and how its cells are
written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import nan
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pandas as pd

from dmlbench.leaderboard.statistics.ranks import rank_text

if TYPE_CHECKING:
    from dmlbench.leaderboard.table import Panel

HOLE = "–"


class Where(NamedTuple):
    """What a section or a column is about. An empty name: about all of them."""

    dataset: str = ""
    backbone: str = ""
    protocol: str = ""

    @classmethod
    def of(cls, panel: Panel) -> Self:
        return cls(panel.dataset, panel.backbone, panel.protocol or "")


EVERYWHERE = Where()


class Cell(NamedTuple):
    """A cell of a table: its text, and the number that sorts it."""

    text: str
    value: float | None = None
    is_first: bool = False
    """Whether its row may be the best of its column."""
    link: str | None = None
    """The page about it, seen from the leaderboard's page."""


class Row(NamedTuple):
    name: str
    """What the row is about, such as a loss."""
    cells: list[Cell]
    link: str | None = None
    """The page about it, seen from the leaderboard's page."""
    is_first: bool = False
    """Whether it may be the best: it has a rank, and no loss is separated from it as better."""


class Failure(NamedTuple):
    """Runs that failed for the same reason."""

    runs: str
    status: str
    message: str


@dataclass(frozen=True)
class Section:
    """A title, a sentence, a table, and what is to be said below it.

    A section without rows has no table.
    """

    title: str
    facts: str
    columns: list[str]
    """Without the first one, which names the rows."""
    rows: list[Row]
    """The best first."""
    controls: list[Row] = field(default_factory=list)
    """Rows of the same columns that no loss competes with."""
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences below the table."""
    names: str = "loss"
    """What the first column holds. In "loss", each name has the colour that it has in plots."""
    text_columns: tuple[str, ...] = ()
    """Those of `columns` that hold text, and no numbers."""
    scores: tuple[str, ...] = ()
    """Those of `columns` that hold scores, the one that ranks the rows first."""
    where: Where = EVERYWHERE
    column_where: tuple[Where, ...] = ()
    """The same of each of `columns`, if they differ in it."""


@dataclass(frozen=True)
class PublishedTable:
    """The published numbers next to those of the study."""

    columns: list[str]
    rows: list[list[str]]
    """The last cell of a row lists numbers of `reasons`, which count from 1."""
    reasons: list[str]


@dataclass(frozen=True)
class Page:
    title: str
    head: dict[str, str]
    sections: list[Section]
    published: PublishedTable | None = None
    remarks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Title -> key path in the study file -> remark."""
    failed_plots: Mapping[str, str] = field(default_factory=dict)
    """Plots that could not be drawn: name -> reason."""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Data set and backbone -> the page of what its losses retrieved, seen from this one."""
    summary: list[str] = field(default_factory=list)
    """Sentences that say who wins, as far as the statistics say so."""
    families: Mapping[str, str] = field(default_factory=dict)
    """Loss -> the family that its file names."""


class Curves(NamedTuple):
    """Lines in a picture of 400 x 120, one for each seed."""

    lines: list[str]
    """x,y of each epoch."""
    lowest: str
    highest: str
    epochs: str


@dataclass(frozen=True)
class CellPage:
    """All that is known about a data set, a backbone and a loss: a page of its own."""

    study: str
    cell: str
    """dataset/backbone/loss."""
    title: str
    head: dict[str, str]
    sections: list[Section]
    commands: list[str]
    """They make the cell again."""
    curves: Curves | None = None
    logs: Mapping[str, list[str]] = field(default_factory=dict)
    """The run -> the last lines of its log."""
    pictures: str | None = None
    """The page that shows what the loss retrieved, seen from this one."""

    @property
    def loss(self) -> str:
        return self.cell.rpartition("/")[2]


def cell_file(cell: str) -> str:
    """The page of a cell, seen from the leaderboard's page.

    >>> cell_file("letters/test_resnet/htl")
    'cells/letters/test_resnet/htl.html'
    """
    return f"cells/{cell}.html"


def shared_settings(recipes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that are equal in all `recipes`."""
    first, *others = [*recipes] or [{}]
    return {k: value for k, value in first.items() if all(o[k] == value for o in others)}


def format_settings(settings: Mapping[str, Any]) -> str:
    """`settings` on one line."""
    return ", ".join(f"{key} {json.dumps(value).strip(chr(34))}" for key, value in settings.items())


def distinct(values: Iterable[Any]) -> str:
    """The texts of all values that are known, each once."""
    return " / ".join(dict.fromkeys(str(v) for v in values if not pd.isna(v) and v)) or "unknown"


def score_cell(mean: float | None, half_width: float = nan) -> Cell:
    """A fraction in percent, with half the width of its interval if it has one; a hole for None or
    NaN."""
    if mean is None or pd.isna(mean):
        return Cell(HOLE)
    interval = "" if pd.isna(half_width) else f" ± {100 * half_width:.2f}"
    return Cell(f"{100 * mean:.2f}{interval}", mean)


def rank_cell(interval: tuple[int, int] | None) -> Cell:
    """The best and the worst rank of a loss; a hole if it has none."""
    return Cell(rank_text(interval), -sum(interval)) if interval else Cell(HOLE)


def number_cell(value: float) -> Cell:
    """A number of any unit."""
    return Cell(HOLE) if pd.isna(value) else Cell(f"{value:.4g}", float(value))


def duration_cell(seconds: float) -> Cell:
    """Seconds, in the unit that fits."""
    if not seconds > 0:  # a control, or NaN because no run succeeded
        return Cell(HOLE)
    minutes, rest = divmod(round(seconds), 60)
    if seconds < 60:
        text = f"{seconds:.1f} s"
    elif minutes < 60:
        text = f"{minutes} min {rest:02} s"
    else:
        text = f"{minutes // 60} h {minutes % 60:02} min"
    return Cell(text, float(seconds))


def speed_cell(images_per_second: float) -> Cell:
    if pd.isna(images_per_second):
        return Cell(HOLE)
    return Cell(f"{images_per_second:,.0f}", float(images_per_second))


def first_line(message: str, longest: int = 200) -> str:
    """The first line of the message of an error, cut if it is long."""
    line = (message.splitlines() or [""])[0]
    return line if len(line) <= longest else line[:longest] + "…"
