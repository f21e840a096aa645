"""The statistics of one data set, backbone and protocol, from the results of its runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import nan
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dmlbench.evaluation.query_file import read_class_scores
from dmlbench.leaderboard.statistics.paired import LEAST_SEEDS, compare_seeds
from dmlbench.leaderboard.statistics.pairs import Floats, PairTests
from dmlbench.leaderboard.statistics.ranks import group_letters, rank_intervals, tie_groups
from dmlbench.leaderboard.statistics.two_way import (
    LEAST_CLASSES,
    ClassTests,
    compare_classes,
    effective_classes,
)
from dmlbench.leaderboard.statistics.two_way import LEAST_SEEDS as LEAST_SEEDS_OF_CLASSES
from dmlbench.leaderboard.table import VERIFICATION, Panel, Result, panels
from dmlbench.study.ladders import find_ladders
from dmlbench.study.result_shape import OK
from dmlbench.study.row_names import is_trained
from dmlbench.utils.workers import SentWithoutCache

if TYPE_CHECKING:
    from pathlib import Path

GPU_HOURS, CORE_HOURS = "GPU-hours", "core-hours"
NOT_KEPT = "single queries of this protocol were not kept"
"""Why other classes are not asked about in all protocols but the first."""


@dataclass(frozen=True)
class PanelStatistics(SentWithoutCache):
    """How far the runs of one data set, backbone and protocol tell its trained losses apart.

    Controls and external embeddings are left out: nothing would train them again.
    """

    panel: Panel
    metric: str
    losses: list[str]
    """L losses that have a score, the one with the best mean first."""
    scores: Floats
    """(L, S) of each loss and seed, as fractions; NaN where a run failed."""
    of_seeds: PairTests | None
    """Would training again change the order? None if there is no pair to test."""
    of_classes: ClassTests | None
    """Would other classes change it? None if there is no pair to test."""
    no_ranks: str
    """Why `of_seeds` is None."""
    no_classes: str
    """Why `of_classes` is None."""
    cost: Floats
    """(L,) hours of a GPU or a core that one more seed takes."""
    cost_unit: str
    is_tuned: bool
    """Whether each loss was tuned; if not, defaults are compared."""
    is_further_rung: bool = False
    """Whether another rung of its ladder is nearer. It is no further data set: they share their
    test images."""

    @cached_property
    def means(self) -> Floats:
        """(L,) the mean over seeds."""
        return np.asarray(np.nanmean(self.scores, axis=1))

    @cached_property
    def ranks(self) -> dict[str, tuple[int, int]]:
        """Loss -> its best and worst rank if it were trained again; empty without tests."""
        return _ranks(self.losses, self.of_seeds)

    @cached_property
    def class_ranks(self) -> dict[str, tuple[int, int]]:
        """The same if the classes were others, too."""
        return _ranks(self.losses, self.of_classes)


NO_STATISTICS: Mapping[str, PanelStatistics] = MappingProxyType({})


def _ranks(losses: Sequence[str], tests: PairTests | None) -> dict[str, tuple[int, int]]:
    intervals = rank_intervals(tests.is_better) if tests else []
    return dict(zip(losses, intervals, strict=False))


def letters_of_ties(tests: PairTests) -> list[str]:
    """The letters of the tie groups of each loss. Losses that share one are not separated.

    The losses must be in their order, the best first.
    """
    is_separated = tests.is_better | tests.is_better.T
    groups = tie_groups(is_separated, range(tests.losses))
    return [group_letters(groups, loss) for loss in range(tests.losses)]


def all_statistics(table: pd.DataFrame, results: Sequence[Result]) -> dict[str, PanelStatistics]:
    """Title of each panel of the long `table` of `results` -> its statistics."""
    rungs = find_ladders(result.planned for result in results)
    further = {name for name, rung in rungs.items() if not rung.is_nearest}
    return {
        panel.title: replace(
            panel_statistics(panel, results), is_further_rung=panel.dataset in further
        )
        for panel in panels(table)
    }


def panel_statistics(panel: Panel, results: Sequence[Result]) -> PanelStatistics:
    """The statistics of `panel`, from the results of a study."""
    rows = panel.rows[panel.rows["loss"].map(is_trained)]
    metric = panel.main_metric
    scores = rows[rows["metric"] == metric].pivot(index="loss", columns="seed", values="value")
    means = scores.mean(axis=1)
    scores = scores.loc[sorted(scores.index, key=lambda loss: (-means[loss], loss))]
    losses, values = [*map(str, scores.index)], scores.to_numpy(dtype=np.float64)
    of_seeds, no_ranks = _test_seeds(values)
    runs = {
        (result.planned["loss"], result.planned["seed"]): result
        for result in results
        if panel.holds(result) and result.metrics["status"] == OK
    }
    of_classes: ClassTests | None = None
    no_classes = no_ranks
    if of_seeds:
        chosen = [[runs.get((loss, seed)) for seed in scores.columns] for loss in losses]
        of_classes, no_classes = _test_classes(chosen, panel.protocol, metric, of_seeds)
    trained = [[run for run in runs.values() if run.planned["loss"] == loss] for loss in losses]
    devices = {_is_of_cpu(run) for seeds in trained for run in seeds}
    return PanelStatistics(
        panel=panel,
        metric=metric,
        losses=losses,
        scores=values,
        of_seeds=of_seeds,
        of_classes=of_classes,
        no_ranks=no_ranks,
        no_classes=no_classes,
        # hours of a GPU and of a core have no sum
        cost=np.array([nan if len(devices) > 1 else _mean_hours(seeds) for seeds in trained]),
        cost_unit=CORE_HOURS if True in devices else GPU_HOURS,
        is_tuned=all("tuning" in run.run["settings"] for seeds in trained for run in seeds),
    )


def _test_seeds(scores: Floats) -> tuple[PairTests | None, str]:
    """The tests, or the reason why there are none."""
    seeds = np.count_nonzero(~np.isnan(scores), axis=1)
    if len(seeds) < 2:
        return None, "one loss has a score" if len(seeds) else "no loss has a score"
    if seeds.max() < LEAST_SEEDS:
        return None, "one seed"
    tests = compare_seeds(scores)
    if np.isnan(tests.p_values).all():
        return None, f"no two losses have {LEAST_SEEDS} seeds in common"
    return tests, ""


def _test_classes(
    runs: Sequence[Sequence[Result | None]], protocol: str | None, metric: str, of_seeds: PairTests
) -> tuple[ClassTests | None, str]:
    """The tests, or the reason why there are none.

    Args:
        runs: of each loss and seed; None where there is none.
    """
    if metric in VERIFICATION:
        return None, "pairs of images are verified here, and no image is a query"
    if of_seeds.seeds.max() < LEAST_SEEDS_OF_CLASSES:
        return None, f"it needs {LEAST_SEEDS_OF_CLASSES} seeds that two losses have in common"
    content = {}
    for loss, seed, file in _query_files(runs):
        scores = file and read_class_scores(file, str(protocol), metric)
        if not scores:
            return None, NOT_KEPT
        content[loss, seed] = scores
    first = next(iter(content.values()))
    effective = effective_classes(first.weights)
    if effective < LEAST_CLASSES:
        return None, (
            f"its queries are of too few classes: {len(first.classes)}, which are worth "
            f"{effective:.1f} of one size, and it needs {LEAST_CLASSES}"
        )
    for scores in content.values():
        is_same_size = np.array_equal(scores.weights, first.weights)
        if not is_same_size or not np.array_equal(scores.classes, first.classes):
            return None, "its runs do not have the same queries"
    totals = np.full((len(runs), len(runs[0]), len(first.classes)), np.nan)
    for place, of_run in content.items():
        totals[place] = of_run.totals
    return compare_classes(totals, first.weights), ""


def _query_files(
    runs: Sequence[Sequence[Result | None]],
) -> Iterator[tuple[int, int, Path | None]]:
    """The file of single queries of each run, with the places of its loss and seed; None if the
    run has no such file."""
    for loss, seeds in enumerate(runs):
        for seed, run in enumerate(seeds):
            if run:
                file = run.files.queries
                yield loss, seed, file if file.name in run.metrics.get("files", {}) else None


def _is_of_cpu(run: Result) -> bool:
    return str(run.run["provenance"].get("device")).startswith("cpu")


def _mean_hours(runs: Sequence[Result]) -> float:
    """The mean of the hours that runs took; NaN if none says so."""
    hours = [_hours(run) for run in runs if run.run["provenance"].get("wall_seconds") is not None]
    return float(np.mean(hours)) if hours else float("nan")


def _hours(run: Result) -> float:
    """Hours of a GPU, or of a core, that a run took. Runs that share a GPU share its hours."""
    origin: Mapping[str, Any] = run.run["provenance"]
    seconds = origin["wall_seconds"]
    if _is_of_cpu(run):
        return float(seconds * run.run["settings"]["recipe"].get("cpu_threads", 1) / 3600)
    return float(seconds / origin.get("runs_per_gpu", 1) / 3600)
