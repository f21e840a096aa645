"""Losses that share seeds: each test equals scipy's."""

import numpy as np
import pytest
from scipy import stats

from dmlbench.leaderboard.statistics import paired
from dmlbench.leaderboard.statistics.paired import compare_seeds, flip_signs
from dmlbench.leaderboard.statistics.pairs import all_pairs


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_all_pairs_equal_the_paired_t_test_of_scipy_on_the_seeds_that_they_share(seeds):
    random = np.random.default_rng(seeds)
    scores = 0.5 + 0.02 * random.normal(size=(6, seeds))
    scores[2, 0] = scores[4, -1] = np.nan
    tests = compare_seeds(scores)
    for pair, (first, second) in enumerate(zip(*all_pairs(6), strict=True)):
        both = ~np.isnan(scores[first] + scores[second])
        assert tests.seeds[pair] == both.sum()
        if both.sum() < 2:
            assert np.isnan(tests.p_values[pair])
            assert tests.adjusted[pair] == 1
            continue
        expected = stats.ttest_rel(scores[first][both], scores[second][both])
        interval = expected.confidence_interval(0.95)
        assert tests.p_values[pair] == pytest.approx(expected.pvalue, abs=1e-10)
        low, high = tests.difference[pair] + tests.half_width[pair] * np.array([-1, 1])
        assert (low, high) == pytest.approx((interval.low, interval.high), abs=1e-10)


@pytest.mark.parametrize("seeds", [2, 3, 5, 9])
def test_sign_flips_equal_the_permutation_test_of_scipy(seeds):
    random = np.random.default_rng(seeds)
    for shift in (0.0, 0.5, 2.0):
        differences = np.round(random.normal(size=seeds) + shift, 1)
        expected = stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        assert flip_signs(differences) == pytest.approx(expected.pvalue, abs=1e-12)


def test_many_seeds_draw_their_signs_and_come_near_the_exact_p_value(monkeypatch):
    differences = np.random.default_rng(1).normal(size=12) + 0.4
    exact = flip_signs(differences)
    monkeypatch.setattr(paired, "MOST_EXACT", 5)
    assert flip_signs(differences) == pytest.approx(exact, abs=0.01)
    assert flip_signs(differences) == flip_signs(differences)
    assert flip_signs(np.full(40, 1.0)) == pytest.approx(1 / (paired.DRAWS + 1))


def test_the_same_numbers_under_two_names_are_equal():
    scores = np.random.default_rng(0).normal(size=5)
    tests = compare_seeds(np.array([scores, scores]))
    assert (tests.p_values, tests.difference) == (1, 0)


def test_two_seeds_with_the_same_rounded_difference_are_no_proof():
    """A small test set has few different scores: t would be infinite."""
    tests = compare_seeds(np.array([[0.30, 0.40], [0.25, 0.35]]))
    assert tests.p_values == 0.5
    assert not tests.is_separated.any()
    ten = compare_seeds(np.array([np.full(10, 0.3), np.full(10, 0.25)]))
    assert ten.p_values == pytest.approx(2 / 2**10)
    assert ten.is_better.tolist() == [[False, True], [False, False]]


def test_a_loss_with_one_seed_is_not_tested():
    scores = np.array([[0.1, 0.2, 0.3], [0.9, np.nan, np.nan], [0.5, 0.6, 0.71]])
    tests = compare_seeds(scores)
    assert np.isnan(tests.p_values).tolist() == [True, False, True]
    assert tests.is_better.tolist() == [[False] * 3, [False] * 3, [True, False, False]]
