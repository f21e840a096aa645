"""The losses of a study over all its data sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from dmlbench.leaderboard.statistics.pairs import Floats
from dmlbench.leaderboard.statistics.panel import PanelStatistics
from dmlbench.leaderboard.statistics.several_datasets import MeanRanks, rank_losses
from dmlbench.study.mean_ranks import LEAST_DATASETS, LEAST_LOSSES


@dataclass(frozen=True)
class OverDatasets:
    """The losses that have a score on every data set of one backbone."""

    backbone: str
    datasets: list[str]
    """N titles of the panels that are compared: the first protocol of each data set."""
    losses: list[str]
    """L losses, the one with the best mean rank first."""
    left_out: list[str]
    """Losses without a score on some of the data sets."""
    ranks: MeanRanks
    runs: list[list[Floats]]
    """The scores of the runs (S,) of each loss on each data set."""


def over_datasets(statistics: Iterable[PanelStatistics]) -> Iterator[OverDatasets]:
    """Compare the losses of each backbone that has enough data sets and losses. Of a ladder, only
    the nearest rung counts."""
    of_backbones: dict[str, dict[tuple[str, str], PanelStatistics]] = {}
    for of_panel in statistics:
        panel = of_panel.panel
        datasets = of_backbones.setdefault(panel.backbone, {})
        if of_panel.losses and not of_panel.is_further_rung:
            datasets.setdefault((panel.dataset, panel.tested_on), of_panel)
    for backbone, datasets in of_backbones.items():
        shown = [*datasets.values()]
        everywhere = set.intersection(*(set(of.losses) for of in shown)) if shown else set()
        losses = [loss for loss in (shown[0].losses if shown else []) if loss in everywhere]
        if len(shown) < LEAST_DATASETS or len(losses) < LEAST_LOSSES:
            continue
        means = [[of.means[of.losses.index(loss)] for of in shown] for loss in losses]
        unsorted = rank_losses(np.array(means))
        order = np.argsort(unsorted.means, kind="stable")
        losses = [losses[place] for place in order]
        some = dict.fromkeys(loss for of in shown for loss in of.losses)
        yield OverDatasets(
            backbone=backbone,
            datasets=[of.panel.title for of in shown],
            losses=losses,
            left_out=[loss for loss in some if loss not in everywhere],
            ranks=MeanRanks(unsorted.ranks[:, order]),
            runs=[[_runs(of, loss) for of in shown] for loss in losses],
        )


def _runs(statistics: PanelStatistics, loss: str) -> Floats:
    scores = statistics.scores[statistics.losses.index(loss)]
    return np.asarray(scores[~np.isnan(scores)])
