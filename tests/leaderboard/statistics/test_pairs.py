"""All pairs of losses: the correction for their number, and what is separated."""

from itertools import combinations

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from dmlbench.leaderboard.statistics.paired import compare_seeds
from dmlbench.leaderboard.statistics.pairs import LEVEL, adjust_p_values


def partitions(items):
    """All ways to put items into groups, by hand."""
    if not items:
        yield []
        return
    first, *rest = items
    for others in partitions(rest):
        yield [[first], *others]
        for place, group in enumerate(others):
            yield [*others[:place], [first, *group], *others[place + 1 :]]


def slow_adjust(p_values, losses):
    """Shaffer's procedure S1, from the list of all groups of equal losses."""
    possible = {
        sum(len([*combinations(group, 2)]) for group in groups)
        for groups in partitions([*range(losses)])
    }
    adjusted, largest = {}, 0.0
    order = sorted(range(len(p_values)), key=lambda pair: p_values[pair])
    for rejected, pair in enumerate(order):
        count = max(number for number in possible if number <= len(p_values) - rejected)
        largest = max(largest, min(1.0, count * p_values[pair]))
        adjusted[pair] = largest
    return [adjusted[pair] for pair in range(len(p_values))]


@pytest.mark.parametrize("losses", [2, 3, 4, 5, 6, 7])
def test_adjusted_p_values_equal_a_list_of_all_groups_of_equal_losses(losses):
    random = np.random.default_rng(losses)
    for scale in (0.01, 1.0):
        p_values = scale * random.uniform(size=losses * (losses - 1) // 2)
        expected = slow_adjust(p_values, losses)
        assert adjust_p_values(p_values, losses) == pytest.approx(expected, abs=1e-15)


def test_all_pairs_that_holm_separates_are_separated():
    random = np.random.default_rng(0)
    for power in (1, 2, 4):
        p_values = random.uniform(size=28) ** power
        ours = adjust_p_values(p_values, losses=8)
        holm = multipletests(p_values, method="holm")[1]
        assert (ours <= holm + 1e-12).all()
        assert ours.min() == pytest.approx(holm.min(), abs=1e-12)
        assert (np.diff(ours[np.argsort(p_values)]) >= 0).all()


def test_the_second_of_28_pairs_is_multiplied_by_21():
    p_values = np.full(28, 0.9)
    p_values[[3, 7]] = 0.0001, 0.002
    assert adjust_p_values(p_values, losses=8)[[3, 7]] == pytest.approx([0.0028, 0.042])


def test_a_pair_without_a_test_is_not_separated_and_counts():
    p_values = np.array([0.02, np.nan, np.nan])
    assert adjust_p_values(p_values, losses=3).tolist() == [0.06, 1, 1]


def test_the_next_pair_must_reach_the_level_after_those_that_are_separated():
    scores = np.random.default_rng(0).normal(size=(8, 5))
    assert compare_seeds(scores).next_level == pytest.approx(LEVEL / 28)
    scores[2] += 1000
    assert compare_seeds(scores).is_separated.sum() == 7
    assert compare_seeds(scores).next_level == pytest.approx(LEVEL / 21)


def studies(losses, count, better=0.0, deviation=1.0):
    random = np.random.default_rng(losses)
    scores = deviation / np.sqrt(2) * random.normal(size=(count, losses, 5))
    scores[:, 0] += better
    return [compare_seeds(study) for study in scores]


@pytest.mark.parametrize("losses", [2, 8])
def test_equal_losses_are_hardly_ever_separated(losses):
    wrong = [tests.is_separated.any() for tests in studies(losses, 500)]
    assert 0.02 < np.mean(wrong) < 0.08


def test_a_loss_that_is_better_by_five_deviations_is_separated():
    found = studies(8, 200, better=2.0, deviation=0.4)
    separated = np.mean([tests.is_better[0, 1:] for tests in found])
    assert separated > 0.9
    assert np.mean([tests.is_better[0, 1:].all() for tests in found]) > 0.7
    assert not np.mean([tests.is_better[1:, 0] for tests in found])
