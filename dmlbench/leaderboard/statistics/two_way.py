"""Would other classes change the order? Tests of losses over seeds and test classes.

The queries of a class are not independent: a class that is hard for a loss is so for all of them.
So classes are what is drawn, beside seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from dmlbench.leaderboard.statistics.paired import compare_seeds
from dmlbench.leaderboard.statistics.pairs import Floats, PairTests, all_pairs

LEAST_SEEDS = 3
"""With two seeds, the intervals cover the true difference in 88 % of studies, not in 95 %."""
LEAST_CLASSES = 3
"""Effective number of classes: with two, or with one that holds most of the queries, the intervals
cover the true difference in 73 to 88 % of studies."""


@dataclass(frozen=True)
class ClassTests(PairTests):
    """Tests that hold for other seeds and other classes."""

    class_part: Floats
    """(P,) the part of the variance of a difference that comes from the classes, from 0 to 1. More
    seeds do not reduce it."""


def compare_classes(totals: Floats, weights: Floats) -> ClassTests:
    """Test each pair of losses by a two-way analysis of variance with random seeds and classes.

    The score of a run is the mean over its queries: a mean over classes c with shares w_c of the
    queries. Let d_sc be the difference of the two losses in the mean score of class c with seed s,
    D_s its mean over C classes, and D the mean of D_s over S seeds. D varies because other seeds
    would give other D_s, and because other classes would:

        Var(D) = Var(D_s) / S + max(MS_class - MS_rest, 0) / (S C)

    The mean squares are those of the two-way table without replication of
    y_sc = C w_c sqrt((1 - 1 / C) / (1 - w_c)) (d_sc - D), which for classes of one size is
    d_sc - D. Classes of other sizes enter by the linearised mean, and the root corrects, as in HC2
    of MacKinnon and White (1985), for large classes that pull D to themselves.

    For equal classes, this is the variance of Obuchowski and Rockette (1995) for readers and cases,
    which are seeds and classes here, with the truncation of Hillis (Statistics in Medicine 2007).
    The degrees of freedom are Satterthwaite's over both parts: S - 1 for seeds, and
    1 / sum(w_c^2) - 1 for classes.

    A difference that would not survive other seeds does not survive other classes: the p-value is
    at least that of `compare_seeds`. Without this, Satterthwaite's approximation calls too many of
    many equal pairs different. Without LEAST_CLASSES, nothing is tested.

    Args:
        totals: (L, S, C) the weighted sum of the scores of the queries, of each loss, seed and
            class; NaN for a run that is missing.
        weights: (C,) the sum of the weights of the queries of each class.
    """
    is_counted = weights > 0
    totals, weights = totals[..., is_counted], weights[is_counted]
    shares = weights / weights.sum()
    scores = (totals / weights) @ shares
    tests = compare_seeds(scores)
    count, effective = len(shares), effective_classes(weights)
    influence = count * shares * np.sqrt((1 - 1 / count) / (1 - shares)) if count > 1 else shares
    weighted = totals / weights * influence
    class_variance = np.full(len(tests.seeds), np.nan)
    if effective >= LEAST_CLASSES:
        for pair, (first, second) in enumerate(zip(*all_pairs(len(scores)), strict=True)):
            if tests.seeds[pair] >= LEAST_SEEDS:
                both = ~np.isnan(scores[first] + scores[second])
                values = weighted[first, both] - weighted[second, both]
                values -= influence * tests.difference[pair]
                class_variance[pair] = _class_variance(values)
    seed_variance = tests.error**2
    variance = seed_variance + class_variance
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = variance**2 / (
            seed_variance**2 / tests.freedom + class_variance**2 / (effective - 1)
        )
        p_values = 2 * stdtr(freedom, -np.abs(tests.difference) / np.sqrt(variance))
        class_part = class_variance / variance
    is_constant = variance == 0
    p_values[is_constant] = tests.p_values[is_constant]
    return ClassTests(
        tests.losses,
        tests.seeds,
        tests.difference,
        np.sqrt(variance),
        freedom,
        np.maximum(p_values, tests.p_values),
        class_part,
    )


def effective_classes(weights: Floats) -> float:
    """The number of classes of one size that would be worth as much: 1 / sum(w_c^2) (Kish 1965).

    Args:
        weights: (C,) of the queries of each class.

    >>> effective_classes(np.array([1.0, 1.0, 1.0])), effective_classes(np.array([9.0, 1.0]))
    (3.0, 1.219512...)
    """
    return float(np.sum(weights) ** 2 / np.sum(weights**2))


def _class_variance(values: Floats) -> float:
    """The variance of the mean of `values` (S, C) over all possible classes, for these seeds."""
    seeds, classes = values.shape
    of_classes = values.mean(axis=0)
    between = seeds * np.sum((of_classes - of_classes.mean()) ** 2) / (classes - 1)
    rest = values - of_classes
    rest -= rest.mean(axis=1, keepdims=True)
    within = np.sum(rest**2) / ((seeds - 1) * (classes - 1))
    return float(max(between - within, 0.0) / (seeds * classes))
