"""The statistics: would other seeds change the order of the losses, and would other classes?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isnan

import numpy as np
from numpy.typing import NDArray

from dmlbench.leaderboard.content import (
    HOLE,
    Cell,
    Row,
    Section,
    Where,
    rank_cell,
    score_cell,
)
from dmlbench.leaderboard.statistics.more_seeds import (
    MOST_SEEDS,
    POWER,
    seeds_of_sign_flips,
    seeds_to_separate,
)
from dmlbench.leaderboard.statistics.over_datasets import OverDatasets, over_datasets
from dmlbench.leaderboard.statistics.paired import ROUNDING, flip_signs, least_p_of_flips
from dmlbench.leaderboard.statistics.pairs import LEVEL, PairTests, all_pairs
from dmlbench.leaderboard.statistics.panel import (
    NOT_KEPT,
    PanelStatistics,
    letters_of_ties,
)
from dmlbench.leaderboard.statistics.ranks import group_letters
from dmlbench.leaderboard.statistics.several_datasets import (
    improvement_interval,
    probability_of_improvement,
)
from dmlbench.utils.text import count_of

AGAIN = "Would training again change the order on this test set?"
OTHER_CLASSES = "Would other classes change it?"
UNDECIDED = "What would separate the undecided pairs?"
SEVERAL = "Over all data sets"
UNTUNED = "No loss was tuned: this is no ranking of what the losses can reach."
SHARED = f"Losses that share a letter are not separated at {100 * LEVEL:.0f} %"
LEAST_RUNS = 3
"""With fewer runs on a data set, a bootstrap over them gives no interval."""
MOST_PAIRS = 20
"""Undecided pairs that a page lists: those that need the fewest more seeds."""


def statistics_sections(statistics: Mapping[str, PanelStatistics]) -> Iterator[Section]:
    """The sections of each panel, then those over all data sets.

    Args:
        statistics: title of a panel -> its statistics.
    """
    for of_panel in statistics.values():
        if of_panel.of_seeds:
            yield _again(of_panel, of_panel.of_seeds)
            if of_panel.no_classes != NOT_KEPT:
                yield _other_classes(of_panel)
            yield from _undecided(of_panel, of_panel.of_seeds)
    for comparison in over_datasets(statistics.values()):
        yield _several(comparison)


def _again(statistics: PanelStatistics, tests: PairTests) -> Section:
    metric = statistics.panel.metrics[statistics.metric]
    seeds = np.count_nonzero(~np.isnan(statistics.scores), axis=1)
    rows = []
    for place, (loss, letters) in enumerate(
        zip(statistics.losses, letters_of_ties(tests), strict=True)
    ):
        differences = statistics.scores[0] - statistics.scores[place]
        cells = [
            rank_cell(statistics.ranks[loss]),
            Cell(letters),
            Cell(str(seeds[place]), float(seeds[place])),
            score_cell(float(statistics.means[place]), float("nan")),
            _behind_cell(_of_first(tests, tests.difference, place)),
            _p_cell(_of_first(tests, tests.adjusted, place)),
            _p_cell(flip_signs(differences) if place else float("nan")),
        ]
        rows.append(Row(loss, cells))
    pairs = len(tests.seeds)
    facts = [
        f"{SHARED}, by paired t tests of {count_of(pairs, 'pair')} over the seeds that both losses "
        f"have, corrected for their number. The rank of a loss is an interval, which holds its "
        f"rank by the means over all seeds that there could be.",
    ]
    return Section(
        title=f"{AGAIN} {statistics.panel.title}",
        facts=" ".join(facts + _untuned(statistics)),
        columns=["rank", "ties", "seeds", metric, "behind the first", "p", "p of sign flips"],
        rows=rows,
        notes=[
            f"{count_of(int(tests.is_separated.sum()), 'pair')} of {pairs} separated."
            f"{_untested(tests)} p compares a loss with the first one, after the correction. p of "
            f"sign flips is of this pair alone and assumes no normal distribution; with "
            f"{seeds.max()} seeds it is at least {least_p_of_flips(int(seeds.max())):.2g}.",
        ],
        text_columns=("ties",),
        where=Where.of(statistics.panel),
    )


def _other_classes(statistics: PanelStatistics) -> Section:
    title = f"{OTHER_CLASSES} {statistics.panel.title}"
    tests = statistics.of_classes
    if not tests:
        facts = f"Not answered: {statistics.no_classes}."
        return Section(title, facts, [], [], where=Where.of(statistics.panel))
    rows = []
    for place, (loss, letters) in enumerate(
        zip(statistics.losses, letters_of_ties(tests), strict=True)
    ):
        part = _of_first(tests, tests.class_part, place)
        cells = [
            rank_cell(statistics.class_ranks[loss]),
            Cell(letters),
            _behind_cell(
                _of_first(tests, tests.difference, place), _of_first(tests, tests.half_width, place)
            ),
            Cell(HOLE) if isnan(part) else Cell(f"{100 * part:.0f} %", float(part)),
            _p_cell(_of_first(tests, tests.adjusted, place)),
        ]
        rows.append(Row(loss, cells))
    return Section(
        title=title,
        facts=f"Seeds and test classes are both random here: queries of one class are not "
        f"independent. {SHARED} by this measure. The gallery stays as it is.",
        columns=["rank", "ties", "behind the first", "due to classes", "p"],
        rows=rows,
        notes=[
            f"{count_of(int(tests.is_separated.sum()), 'pair')} of {len(tests.seeds)} separated."
            f'{_untested(tests)} "behind the first" is the difference ± half the width of its 95 % '
            f'interval, of this pair alone. "due to classes" is the part of its variance that '
            f"comes from the choice of the test classes: more seeds do not reduce it."
        ],
        text_columns=("ties",),
        where=Where.of(statistics.panel),
    )


def _undecided(statistics: PanelStatistics, tests: PairTests) -> Iterator[Section]:
    """The pairs that are not separated, those that need the fewest more seeds first."""
    first, second = all_pairs(tests.losses)
    deviations, needed = tests.error * np.sqrt(tests.seeds), _seeds_needed(tests)
    missing = np.maximum(needed - tests.seeds, 1)
    is_undecided = ~tests.is_separated & ~np.isnan(tests.p_values)
    pairs = np.flatnonzero(is_undecided)[np.argsort(missing[is_undecided], kind="stable")]
    rows = []
    for pair in pairs[:MOST_PAIRS]:
        more = int(missing[pair])
        hours = more * float(statistics.cost[first[pair]] + statistics.cost[second[pair]])
        is_known = needed[pair] <= MOST_SEEDS
        cells = [
            _points_cell(tests.difference[pair]),
            _points_cell(deviations[pair]),
            Cell(str(tests.seeds[pair]), float(tests.seeds[pair])),
            Cell(f"{more:,}", -more) if is_known else Cell(f"> {MOST_SEEDS:,}", -MOST_SEEDS),
            _hours_cell(hours if is_known else float("nan")),
        ]
        names = (statistics.losses[first[pair]], statistics.losses[second[pair]])
        rows.append(Row(", ".join(names), cells))
    hidden = len(pairs) - len(rows)
    if not rows:
        return
    yield Section(
        title=f"{UNDECIDED} {statistics.panel.title}",
        facts=f"With so many more seeds of both losses, the paired t test has a power of "
        f"{100 * POWER:.0f} %, if the difference and its deviation are those that were observed. "
        f"Both are estimates: with few seeds, the number is a rough one.",
        columns=["difference", "deviation", "seeds", "more seeds", statistics.cost_unit],
        rows=rows,
        notes=[f"Not shown: {count_of(hidden, 'pair')}, which need at least as many."]
        if hidden
        else [],
        names="pair",
        where=Where.of(statistics.panel),
    )


def _seeds_needed(tests: PairTests) -> NDArray[np.int64]:
    """(P,) the number of seeds that would separate each pair; MOST_SEEDS + 1 if it is more."""
    deviations = tests.error * np.sqrt(tests.seeds)
    with np.errstate(divide="ignore", invalid="ignore"):
        effects = tests.difference / deviations
    varies = deviations > ROUNDING
    needed = seeds_to_separate(np.where(varies, effects, 0.0), tests.next_level)
    is_constant = ~varies & (np.abs(tests.difference) > ROUNDING)
    needed[is_constant] = seeds_of_sign_flips(tests.next_level)
    return needed


def _several(comparison: OverDatasets) -> Section:
    ranks, losses = comparison.ranks, comparison.losses
    statistic, p_value = ranks.friedman
    rows = []
    for place, loss in enumerate(losses):
        of_loss = ranks.ranks[:, place]
        cells = [
            Cell(f"{ranks.means[place]:.2f}", -float(ranks.means[place])),
            Cell(group_letters(ranks.tie_groups, place)),
            Cell(" ".join(f"{rank:g}" for rank in of_loss)),
            _improvement_cell(comparison, place),
        ]
        rows.append(Row(loss, cells))
    facts = [
        f"{len(comparison.datasets)} data sets: {'; '.join(comparison.datasets)}.",
        f"Friedman's test of equal mean ranks: statistic {statistic:.2f}, p {_p_text(p_value)}, "
        f"which is good from some ten data sets on.",
        f"{SHARED} by Nemenyi's test: mean ranks that differ by less than "
        f"{ranks.critical_difference:.2f} are tied.",
    ]
    if comparison.left_out:
        facts.append(f"Without a score on each data set: {', '.join(comparison.left_out)}.")
    return Section(
        title=f"{SEVERAL}: {comparison.backbone}",
        facts=" ".join(facts),
        columns=["mean rank", "ties", "ranks", "the first is better"],
        rows=rows,
        notes=[
            '"the first is better" is the probability that a run of the first loss has a higher '
            "score than a run of this one, as mean over the data sets, with its 95 % interval over "
            f"seeds if each data set has {LEAST_RUNS} runs. The first loss was chosen by the same "
            "scores, and the intervals are not corrected for the number of losses: one above 50 % "
            "is no proof. It says nothing about other data sets, and not by how much."
        ],
        text_columns=("ties", "ranks"),
        where=Where(backbone=comparison.backbone),
    )


def _improvement_cell(comparison: OverDatasets, place: int) -> Cell:
    if not place:
        return Cell(HOLE)
    runs = comparison.runs[0], comparison.runs[place]
    probability = probability_of_improvement(*runs)
    text = f"{100 * probability:.0f} %"
    if min(len(scores) for of_loss in runs for scores in of_loss) >= LEAST_RUNS:
        low, high = improvement_interval(*runs)
        text += f" ({100 * low:.0f} to {100 * high:.0f})"
    return Cell(text, probability)


def _of_first(tests: PairTests, values: NDArray[np.float64], place: int) -> float:
    """The value of the pair of the first loss and the one at `place`; NaN if there is no such pair
    or if it was not tested."""
    pair = place - 1  # the pairs of the first loss come first
    is_tested = place > 0 and not isnan(tests.p_values[pair])
    return float(values[pair]) if is_tested else float("nan")


def _untested(tests: PairTests) -> str:
    count = int(np.isnan(tests.p_values).sum())
    reason = "not tested, because they have too few seeds in common"
    return f" {count_of(count, 'pair')} {reason}." if count else ""


def _untuned(statistics: PanelStatistics) -> list[str]:
    return [] if statistics.is_tuned else [UNTUNED]


def _hours_cell(hours: float) -> Cell:
    if isnan(hours):
        return Cell(HOLE)
    return Cell(f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}", -hours)


def _points_cell(difference: float) -> Cell:
    """A difference of fractions, in percentage points."""
    return Cell(f"{100 * difference:.2f}", float(difference))


def _behind_cell(difference: float, half_width: float = float("nan")) -> Cell:
    """How far a loss is behind the first one, in percentage points."""
    if isnan(difference):
        return Cell(HOLE)
    interval = "" if isnan(half_width) else f" ± {100 * half_width:.2f}"
    return Cell(f"{100 * difference:.2f}{interval}", -float(difference))


def _p_cell(p_value: float) -> Cell:
    return Cell(HOLE) if isnan(p_value) else Cell(_p_text(p_value), -float(p_value))


def _p_text(p_value: float) -> str:
    """
    >>> _p_text(0.04321), _p_text(0.00001)
    ('0.043', '< 0.001')
    """
    return "< 0.001" if p_value < 0.001 else f"{p_value:.2g}"
