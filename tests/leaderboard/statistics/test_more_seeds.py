"""The power of the paired t test equals statsmodels'."""

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from dmlbench.leaderboard.statistics.more_seeds import (
    MOST_SEEDS,
    power_of_paired_t,
    seeds_of_sign_flips,
    seeds_to_separate,
)
from dmlbench.leaderboard.statistics.paired import MOST_EXACT, flip_signs, least_p_of_flips

LEVELS = (0.05, 0.05 / 28, 0.05 / 435)


def power(seeds, effect, level):
    """Of one pair."""
    return power_of_paired_t(np.array([seeds]), np.array([effect]), level)[0]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("effect", [0.01, 0.3, 1.0, -2.0])
def test_the_power_equals_statsmodels(effect, level):
    for seeds in (2, 3, 5, 10, 40):
        expected = float(TTestPower().power(effect, seeds, level))
        if not np.isnan(expected):
            assert power(seeds, effect, level) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("effect", [0.1, 0.25, 1.0, -3.0, 12.0, 500.0])
def test_the_number_of_seeds_is_the_least_with_enough_power(effect, level):
    (seeds,) = seeds_to_separate(np.array([effect]), level)
    assert power(seeds, effect, level) >= 0.8 or seeds == MOST_SEEDS + 1
    assert seeds == 2 or power(seeds - 1, effect, level) < 0.8


def test_the_numbers_of_several_pairs_are_those_of_each_alone():
    effects = np.array([0.1, -1.0, 0.0, 3.0])
    alone = [seeds_to_separate(effects[[place]], 0.05)[0] for place in range(4)]
    assert seeds_to_separate(effects, 0.05).tolist() == alone == [787, 10, MOST_SEEDS + 1, 4]


def test_the_power_is_that_of_simulated_studies():
    differences = np.random.default_rng(0).normal(1.0, 0.5, size=(4000, 4))
    t = differences.mean(axis=1) / (differences.std(axis=1, ddof=1) / 2)
    separated = np.mean(np.abs(t) >= 3.182446)
    assert power(4, 2.0, 0.05) == pytest.approx(separated, abs=0.025)


@pytest.mark.parametrize(
    ("level", "seeds"),
    [(0.05, 6), (0.5, 2), (0.0625, 5), (2 / 2**14, 14), (6e-5, 16), (4e-5, MOST_SEEDS + 1)],
)
def test_sign_flips_need_enough_choices_of_signs(level, seeds):
    assert seeds_of_sign_flips(level) == seeds
    if seeds <= MOST_EXACT:  # as the test itself says of differences that all have one sign
        assert flip_signs(np.ones(seeds)) <= level
        assert not flip_signs(np.ones(seeds - 1)) <= level


@pytest.mark.parametrize("seeds", [2, 5, 14, 40])
def test_the_least_p_value_of_sign_flips_is_that_of_equal_differences(seeds):
    assert flip_signs(np.ones(seeds)) == least_p_of_flips(seeds)
