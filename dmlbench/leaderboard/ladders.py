"""The rungs of the ladders of a study, side by side: what its section and its plot show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from dmlbench.evaluation.leaks import WITHOUT_LEAKS
from dmlbench.leaderboard.statistics.means import summarise
from dmlbench.leaderboard.table import Panel, Result, panels, recalls
from dmlbench.study.ladders import Rung, find_ladders


@dataclass(frozen=True)
class Ladder:
    """The rungs of one ladder with one backbone and one protocol."""

    rungs: list[tuple[Rung, Panel]]
    """Two or more, the nearest first."""

    @property
    def title(self) -> str:
        """For example "birds · tiny · zero_shot"."""
        rung, panel = self.rungs[0]
        return f"{rung.ladder} · {panel.backbone} · {panel.protocol}"

    @property
    def metrics(self) -> list[str]:
        """MAP@R, which ranks the losses, and the first Recall@K."""
        panel = self.rungs[0][1]
        return [panel.main_metric, *recalls(panel.rows)[:1]]

    @cached_property
    def losses(self) -> list[str]:
        """All losses of the plan, in its order."""
        return [*dict.fromkeys(str(loss) for _, panel in self.rungs for loss in panel.rows["loss"])]

    @cached_property
    def means(self) -> list[pd.DataFrame]:
        """Of each rung, the means and intervals as `summarise` gives them."""
        return [summarise(panel.rows) for _, panel in self.rungs]

    @cached_property
    def falls(self) -> pd.DataFrame:
        """How much lower each loss scores on the last rung than on the first one, as `summarise`
        gives it: the mean over the seeds that succeeded on both, and its interval.

        A seed begins with the same weights on both rungs, so the scores are paired.
        """
        first, last = (panel.rows for _, panel in (self.rungs[0], self.rungs[-1]))
        names = ["loss", "metric", "seed"]
        both = first.dropna(subset="value").merge(
            last.dropna(subset="value"), on=names, suffixes=("_first", "_last")
        )
        return summarise(both.assign(value=both["value_first"] - both["value_last"]))


def read_ladders(table: pd.DataFrame, results: Sequence[Result]) -> Iterator[Ladder]:
    """The ladders of the long `table` of `results`, for each backbone and protocol in which at
    least two rungs have a score.

    The scores without leaked images are left out: they repeat those of their protocol.
    """
    rungs = find_ladders(result.planned for result in results)
    groups: dict[tuple[str, str, str], list[tuple[Rung, Panel]]] = {}
    for panel in panels(table):
        if panel.dataset in rungs and panel.protocol:
            rung = rungs[panel.dataset]
            if not panel.protocol.endswith(WITHOUT_LEAKS):
                place = rung.ladder, panel.backbone, panel.protocol
                groups.setdefault(place, []).append((rung, panel))
    for of_ladder in groups.values():
        if len(of_ladder) > 1:
            yield Ladder(sorted(of_ladder, key=lambda part: part[0].number))
