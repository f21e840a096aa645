"""How many more seeds would separate two losses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import nctdtr, stdtrit

from dmlbench.leaderboard.statistics.paired import LEAST_SEEDS, MOST_EXACT, least_p_of_flips
from dmlbench.leaderboard.statistics.pairs import Floats

POWER = 0.8
MOST_SEEDS = 1000
Ints = NDArray[np.int64]


def power_of_paired_t(seeds: Ints, effects: Floats, level: float) -> Floats:
    """The probability that the two-sided paired t test has a p-value of at most `level`.

    It is that of the noncentral t distribution with n - 1 degrees of freedom and the noncentrality
    effect x sqrt(n) (Cohen 1988).

    Args:
        seeds: (P,) n of each pair, at least 2.
        effects: (P,) mean of the paired differences / their standard deviation.

    >>> power_of_paired_t(np.array([5]), np.array([2.0]), level=0.05).round(4).tolist()
    [0.9089]
    """
    freedom, noncentrality = seeds - 1, np.abs(effects) * np.sqrt(seeds)
    bound = stdtrit(freedom, 1 - level / 2)
    below = nctdtr(freedom, noncentrality, bound)
    far = nctdtr(freedom, noncentrality, -bound)
    # scipy gives NaN for some of the probabilities that are 0 in float64
    return np.asarray(1 - np.where(np.isnan(below), 0, below) + np.where(np.isnan(far), 0, far))


def seeds_to_separate(effects: Floats, level: float, power: float = POWER) -> Ints:
    """The least number of seeds with which a paired t test has this power; MOST_SEEDS + 1 if
    MOST_SEEDS are not enough.

    Args:
        effects: (P,) mean of the paired differences / their standard deviation.

    >>> seeds_to_separate(np.array([1.0, 0.0]), level=0.05).tolist()
    [10, 1001]
    """
    low = np.ones(len(effects), dtype=np.int64)  # the power is too small
    high = np.full_like(low, MOST_SEEDS + 1)
    while (high - low).max(initial=0) > 1:
        middle = np.maximum((low + high) // 2, 2)
        is_enough = power_of_paired_t(middle, effects, level) >= power
        low, high = np.where(is_enough, low, middle), np.where(is_enough, middle, high)
    return high


def seeds_of_sign_flips(level: float) -> int:
    """The least number of seeds with which `flip_signs` can have a p-value of `level`; MOST_SEEDS +
    1 if no number is enough.

    >>> seeds_of_sign_flips(0.05)
    6
    """
    counts = range(LEAST_SEEDS, MOST_EXACT + 3)  # from there on, nothing changes
    return next((n for n in counts if least_p_of_flips(n) <= level), MOST_SEEDS + 1)
