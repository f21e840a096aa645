"""The overview: a row for each loss, with all data sets, backbones and protocols side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, nan
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from dmlbench.evaluation.leaks import WITHOUT_LEAKS
from dmlbench.leaderboard.content import (
    EVERYWHERE,
    HOLE,
    Cell,
    Row,
    Section,
    Where,
    cell_file,
    score_cell,
)
from dmlbench.leaderboard.sections.summary import listed
from dmlbench.leaderboard.statistics.means import summarise
from dmlbench.leaderboard.statistics.panel import PanelStatistics
from dmlbench.leaderboard.statistics.several_datasets import rank_losses
from dmlbench.leaderboard.table import Panel, panels
from dmlbench.study.row_names import is_control, is_trained
from dmlbench.utils.text import count_of

TITLE = "Overview"
MEAN_RANK = "mean rank"


@dataclass(frozen=True)
class Column:
    """A column of the overview: a panel, and the scores of its losses by its main metric."""

    panel: Panel
    means: Mapping[str, float]
    half_widths: Mapping[str, float]
    losses: frozenset[str]
    """All that the study planned here."""
    tests: PanelStatistics | None

    @property
    def metric(self) -> str:
        return self.panel.metrics[self.panel.main_metric]

    def may_be_first(self, loss: str) -> bool:
        """Whether no loss is separated from it as better; False without tests."""
        return bool(self.tests and self.tests.ranks.get(loss, (0, 0))[0] == 1)

    def cell(self, loss: str) -> Cell:
        if loss not in self.losses:
            return Cell(HOLE)
        score = score_cell(self.means.get(loss), self.half_widths.get(loss, nan))
        page = quote(cell_file(f"{self.panel.dataset}/{self.panel.backbone}/{loss}"))
        return score._replace(is_first=self.may_be_first(loss), link=page)


@dataclass(frozen=True)
class Overview:
    """The main scores of a study that has several data sets, backbones or protocols."""

    columns: Sequence[Column]

    @cached_property
    def ranked(self) -> list[Column]:
        """The columns of the mean rank: the first protocol of each data set and backbone that has
        scores of trained losses. Its other protocols score the same embeddings, and further rungs
        of a ladder the same images."""
        first: dict[tuple[str, ...], Column] = {}
        for column in self.columns:
            panel = column.panel
            is_further_rung = column.tests is not None and column.tests.is_further_rung
            if any(map(is_trained, column.means)) and not is_further_rung:
                first.setdefault((panel.dataset, panel.tested_on, panel.backbone), column)
        return [*first.values()]

    @cached_property
    def mean_ranks(self) -> dict[str, float]:
        """Trained loss -> its mean rank among those with a score in each of `ranked`."""
        if len(self.ranked) < 2:
            return {}
        first, *others = self.ranked
        everywhere = [loss for loss in first.means if all(loss in c.means for c in others)]
        losses = [loss for loss in everywhere if is_trained(loss)]
        if len(losses) < 2:
            return {}
        ranks = rank_losses(np.array([[c.means[loss] for c in self.ranked] for loss in losses]))
        return dict(zip(losses, ranks.means.tolist(), strict=True))

    @property
    def tables(self) -> str:
        """What the mean ranks are over: "2 data sets and 2 backbones"."""
        panels = [column.panel for column in self.ranked]
        datasets = len({(panel.dataset, panel.tested_on) for panel in panels})
        backbones = len({panel.backbone for panel in panels})
        counts = [(datasets, "data set"), (backbones, "backbone")]
        return " and ".join(count_of(count, noun) for count, noun in counts if count > 1)

    def sentence(self) -> str | None:
        """Who has the best mean rank, and how far tests confirm it; None without mean ranks."""
        if not self.mean_ranks:
            return None
        best = min(self.mean_ranks.values())
        leaders = [loss for loss, rank in self.mean_ranks.items() if rank == best]
        verb = "has" if len(leaders) == 1 else "have"
        text = f"Over {self.tables}, {listed(leaders)} {verb} the best mean rank ({best:.2f})"
        tested = [column for column in self.ranked if column.tests and column.tests.of_seeds]
        if not tested or len(leaders) > 1:
            return f"{text}."
        first = sum(column.may_be_first(leaders[0]) for column in tested)
        of_tested = f"of the {count_of(len(tested), 'column')} with tests"
        if not first:
            return f"{text}; in each {of_tested} another loss is significantly better."
        places = "all" if first == len(tested) else f"{first}"
        text = f"{text}; in {places} {of_tested} no loss is significantly better."
        others = sum(
            sum(column.may_be_first(loss) for column in tested) >= first
            for loss in self.mean_ranks.keys() - {leaders[0]}
        )
        if not others:
            return text
        same = "all of them" if first == len(tested) else "at least as many"
        return f"{text} The same holds for {count_of(others, 'other loss')} in {same}."

    def section(self) -> Section:
        """The table, sorted by mean rank; losses that have none are below."""
        names, ranks = self._names(), self.mean_ranks
        metrics = dict.fromkeys(column.metric for column in self.columns)
        losses = {loss for column in self.columns for loss in column.losses}
        rank_columns = [MEAN_RANK] if ranks else []
        facts = [
            f"{' or '.join(metrics)} in percent: the mean over seeds ± half the width of its 95 % "
            f"interval. Marked: no loss is significantly better in this column."
        ]
        if ranks:
            facts.append(
                f"The mean rank is over {self.tables}; a loss that lacks a score in one of them "
                f"has none."
            )
        return Section(
            title=TITLE,
            facts=" ".join(facts),
            columns=[*rank_columns, *names],
            rows=self._rows(loss for loss in losses if not is_control(loss)),
            controls=self._rows(filter(is_control, losses)),
            scores=(*rank_columns, *names),
            column_where=(
                *(EVERYWHERE for _ in rank_columns),
                *(Where.of(column.panel) for column in self.columns),
            ),
        )

    def _names(self) -> list[str]:
        """The panels' titles, without the parts that all have in common."""
        parts = [(*c.panel.title.split(" · "), "")[:3] for c in self.columns]
        varies = [len(set(values)) > 1 for values in zip(*parts, strict=True)]
        several = len({column.metric for column in self.columns}) > 1
        return [
            " · ".join(part for part, is_told in zip(of, varies, strict=True) if is_told and part)
            + (f" ({column.metric})" if several else "")
            for of, column in zip(parts, self.columns, strict=True)
        ]

    def _rows(self, losses: Iterable[str]) -> list[Row]:
        ranks = self.mean_ranks

        def order(loss: str) -> tuple[Any, ...]:
            return ranks.get(loss, inf), -self.columns[0].means.get(loss, -inf), loss

        return [
            Row(
                loss,
                [
                    *([_rank_cell(ranks.get(loss))] if ranks else []),
                    *(column.cell(loss) for column in self.columns),
                ],
            )
            for loss in sorted(losses, key=order)
        ]


def read_overview(
    table: pd.DataFrame, statistics: Mapping[str, PanelStatistics]
) -> Overview | None:
    """The overview of the long `table`; None if it has only one panel.

    The scores without leaked images are left out: they repeat those of their protocol.

    Args:
        statistics: title of a panel -> its statistics, which mark what may be the best.
    """
    columns = [
        _column(panel, statistics.get(panel.title))
        for panel in panels(table)
        if not str(panel.protocol).endswith(WITHOUT_LEAKS)
    ]
    return Overview(columns) if len(columns) > 1 else None


def _column(panel: Panel, tests: PanelStatistics | None) -> Column:
    summary = summarise(panel.rows[panel.rows["metric"] == panel.main_metric])
    scores = summary.droplevel("metric")
    return Column(
        panel=panel,
        means={str(loss): float(mean) for loss, mean in scores["mean"].items()},
        half_widths={str(loss): float(half) for loss, half in scores["half_width"].items()},
        losses=frozenset(map(str, panel.rows["loss"])),
        tests=tests,
    )


def _rank_cell(rank: float | None) -> Cell:
    return Cell(HOLE) if rank is None else Cell(f"{rank:.2f}", -rank)
