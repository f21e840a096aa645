"""Would training again change the order on this test set? Tests of losses that share seeds.

Seed k starts every loss from the same weights and shows it the same batches. So the differences
between two losses are taken seed by seed.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
from scipy.special import stdtr

from dmlbench.leaderboard.statistics.pairs import Floats, PairTests, all_pairs

LEAST_SEEDS = 2
ROUNDING = 1e-12
"""Differences of scores, which are fractions, that vary by less are all the same."""
MOST_EXACT = 14
"""For more seeds, the sign-flip test draws its flips: there are 2^seeds of them."""
DRAWS = 20_000


def compare_seeds(scores: Floats) -> PairTests:
    """Test each pair of losses by Student's t of their paired differences.

    For the n seeds that both losses have, with differences of mean d and standard deviation s (with
    n - 1 in its denominator), t = d / (s / sqrt(n)) with n - 1 degrees of freedom; two-sided. If
    all differences are the same, s is 0 and t says nothing: then the p-value is that of
    `flip_signs`.

    Args:
        scores: (L, S) of each loss and seed, as fractions; NaN where there is none.

    >>> tests = compare_seeds(np.array([[0.50, 0.52, 0.54], [0.40, 0.41, 0.45]]))
    >>> tests.difference.round(4).tolist(), tests.p_values.round(4).tolist()
    ([0.1], [0.0033])
    """
    first, second = all_pairs(len(scores))
    differences = scores[first] - scores[second]
    seeds = np.count_nonzero(~np.isnan(differences), axis=1)
    is_tested = seeds >= LEAST_SEEDS
    mean, error = np.full((2, len(first)), np.nan)
    mean[is_tested] = np.nanmean(differences[is_tested], axis=1)
    deviation = np.nanstd(differences[is_tested], axis=1, ddof=1)
    error[is_tested] = deviation / np.sqrt(seeds[is_tested])
    freedom = np.where(is_tested, seeds - 1.0, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        p_values = 2 * stdtr(freedom, -np.abs(mean / error))
    for pair in np.flatnonzero(error <= ROUNDING):
        p_values[pair] = flip_signs(differences[pair])
    return PairTests(len(scores), seeds, mean, error, freedom, p_values)


def flip_signs(differences: Floats) -> float:
    """The p-value of the exact sign-flip test (Fisher 1935), two-sided.

    If two losses are equal, each difference could as well have the other sign. The p-value is the
    part of all 2^n choices of signs for which the mean is at least as far from 0. It assumes no
    distribution, and cannot be below 2 / 2^n: with 5 seeds, 0.0625.

    For more than MOST_EXACT seeds it draws signs with a fixed seed; then the p-value is
    (extreme draws + 1) / (draws + 1) (Phipson and Smyth 2010).

    Args:
        differences: (S,) of a pair; NaN does not count.

    >>> flip_signs(np.array([0.02, 0.01, 0.03, 0.02, 0.01]))
    0.0625
    """
    values = differences[~np.isnan(differences)]
    if len(values) < LEAST_SEEDS:
        return float("nan")
    observed = abs(values.sum()) - ROUNDING
    if len(values) <= MOST_EXACT:
        return float(np.mean(np.abs(_half_of_signs(len(values)) @ values) >= observed))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(DRAWS, len(values)))
    return float((np.count_nonzero(np.abs(signs @ values) >= observed) + 1) / (DRAWS + 1))


def least_p_of_flips(seeds: int) -> float:
    """The least p-value that `flip_signs` can give with so many seeds.

    >>> least_p_of_flips(5)
    0.0625
    """
    exact = 2 / 2**seeds
    return exact if seeds <= MOST_EXACT else max(exact, 1 / (DRAWS + 1))


@cache
def _half_of_signs(count: int) -> Floats:
    """The choices of signs (2^(count - 1), count) that begin with +; the others mirror them."""
    return np.array([(1.0, *rest) for rest in product([1.0, -1.0], repeat=count - 1)])
