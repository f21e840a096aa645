"""Several data sets: each test equals scipy's or scikit-posthocs'."""

import numpy as np
import pytest
import scikit_posthocs
from scipy import stats

from dmlbench.leaderboard.statistics.several_datasets import (
    improvement_interval,
    probability_of_improvement,
    rank_losses,
)

SHAPES = [(3, 2), (5, 4), (8, 6), (30, 4)]


@pytest.fixture(params=SHAPES, ids=lambda shape: f"{shape[0]} losses, {shape[1]} data sets")
def scores(request):
    """(L, N) with ties, and losses that differ."""
    losses, datasets = request.param
    random = np.random.default_rng(losses)
    return np.round(random.normal(size=(losses, datasets)) + 0.3 * np.arange(losses)[:, None], 1)


def test_the_best_score_has_rank_one_and_ties_share_their_ranks():
    ranks = rank_losses(np.array([[0.9, 0.2], [0.5, 0.7], [0.9, 0.1]]))
    assert ranks.ranks.tolist() == [[1.5, 3, 1.5], [2, 1, 3]]
    assert ranks.means.tolist() == [1.75, 2, 2.25]


def test_friedmans_test_equals_scipy(scores):
    expected = stats.friedmanchisquare(*scores)
    statistic, p_value = rank_losses(scores).friedman
    assert statistic == pytest.approx(expected.statistic, abs=1e-10)
    assert p_value == pytest.approx(expected.pvalue, abs=1e-10)


def test_losses_that_are_tied_everywhere_do_not_differ():
    assert rank_losses(np.full((4, 3), 0.5)).friedman == (0, 1)


def test_nemenyi_separates_what_scikit_posthocs_separates(scores):
    ranks = rank_losses(scores)
    p_values = scikit_posthocs.posthoc_nemenyi_friedman(scores.T).to_numpy()
    groups = ranks.tie_groups
    for first in range(len(scores)):
        for second in range(first):
            together = any(first in group and second in group for group in groups)
            assert together == (p_values[first, second] > 0.05)
    for group in groups:
        assert not any(set(group) < set(other) for other in groups)


@pytest.mark.parametrize(
    ("losses", "quantile"), [(2, 1.960), (3, 2.343), (5, 2.728), (8, 3.031), (10, 3.164)]
)
def test_the_critical_difference_is_that_of_demsars_table(losses, quantile):
    ranks = rank_losses(np.random.default_rng(0).normal(size=(losses, 6)))
    expected = quantile * np.sqrt(losses * (losses + 1) / 36)
    assert ranks.critical_difference == pytest.approx(expected, rel=5e-4)


def test_the_probability_of_improvement_equals_the_mann_whitney_statistic_of_scipy():
    random = np.random.default_rng(0)
    first = [np.round(random.normal(size=size), 1) for size in (5, 4, 5)]
    second = [np.round(random.normal(size=size), 1) for size in (5, 5, 3)]
    parts = [
        stats.mannwhitneyu(ours, theirs).statistic / (len(ours) * len(theirs))
        for ours, theirs in zip(first, second, strict=True)
    ]
    assert probability_of_improvement(first, second) == pytest.approx(np.mean(parts), abs=1e-12)
    assert probability_of_improvement(first, first) == 0.5


def test_its_interval_equals_a_bootstrap_that_draws_the_runs_themselves():
    random = np.random.default_rng(1)
    first = [random.normal(size=5) + 0.5 for _ in range(3)]
    second = [random.normal(size=5) for _ in range(3)]
    drawn = [
        probability_of_improvement(
            [random.choice(runs, len(runs)) for runs in first],
            [random.choice(runs, len(runs)) for runs in second],
        )
        for _ in range(3000)
    ]
    expected = np.quantile(drawn, [0.025, 0.975])
    assert improvement_interval(first, second) == pytest.approx(expected, abs=0.03)
    assert improvement_interval(first, second) == improvement_interval(first, second)
