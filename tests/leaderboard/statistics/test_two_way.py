"""Seeds and classes are both random: each number equals a loop, and statsmodels' table."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.anova import anova_lm

from dmlbench.leaderboard.statistics.paired import compare_seeds
from dmlbench.leaderboard.statistics.pairs import all_pairs
from dmlbench.leaderboard.statistics.two_way import compare_classes


def draw(losses, seeds, sizes, seed_sd, class_sd, rest_sd, random):
    """Totals (L, S, C) of equal losses, and the weights (C,): the number of queries."""
    classes = len(sizes)
    means = seed_sd * random.normal(size=(losses, seeds, 1))
    means = means + class_sd * random.normal(size=(losses, 1, classes))
    means = means + rest_sd * random.normal(size=(losses, seeds, classes)) * np.sqrt(20 / sizes)
    return means * sizes, np.asarray(sizes, dtype=float)


def slow(first, second, weights):
    """The difference of two losses (S, C) with its error and degrees of freedom, in loops."""
    seeds, classes = first.shape
    shares = [weight / sum(weights) for weight in weights]
    d = [[(first[s, c] - second[s, c]) / weights[c] for c in range(classes)] for s in range(seeds)]
    of_seeds = [sum(shares[c] * d[s][c] for c in range(classes)) for s in range(seeds)]
    mean = sum(of_seeds) / seeds
    y = [
        [
            classes * shares[c] * ((1 - 1 / classes) / (1 - shares[c])) ** 0.5 * (d[s][c] - mean)
            for c in range(classes)
        ]
        for s in range(seeds)
    ]
    of_class = [sum(y[s][c] for s in range(seeds)) / seeds for c in range(classes)]
    of_seed = [sum(y[s]) / classes for s in range(seeds)]
    grand = sum(of_seed) / seeds
    ms_class = seeds * sum((b - grand) ** 2 for b in of_class) / (classes - 1)
    ms_rest = sum(
        (y[s][c] - of_class[c] - of_seed[s] + grand) ** 2
        for s in range(seeds)
        for c in range(classes)
    ) / ((seeds - 1) * (classes - 1))
    by_classes = max(ms_class - ms_rest, 0) / (seeds * classes)
    by_seeds = sum((x - mean) ** 2 for x in of_seeds) / (seeds - 1) / seeds
    effective = 1 / sum(share**2 for share in shares)
    variance = by_seeds + by_classes
    freedom = variance**2 / (by_seeds**2 / (seeds - 1) + by_classes**2 / (effective - 1))
    return mean, variance**0.5, freedom, by_classes / variance


@pytest.mark.parametrize("class_sd", [0.0, 0.02, 0.5])
def test_all_pairs_equal_a_loop_over_seeds_and_classes(class_sd):
    random = np.random.default_rng(3)
    totals, weights = draw(4, 5, random.integers(2, 90, size=12), 0.05, class_sd, 0.1, random)
    totals[1, 2] = np.nan
    tests = compare_classes(totals, weights)
    seed_tests = compare_seeds(totals.sum(axis=2) / weights.sum())
    for pair, (first, second) in enumerate(zip(*all_pairs(4), strict=True)):
        both = ~np.isnan(totals[first, :, 0] + totals[second, :, 0])
        mean, error, freedom, part = slow(totals[first, both], totals[second, both], weights)
        p_value = 2 * stats.t.sf(abs(mean) / error, freedom)
        assert tests.seeds[pair] == both.sum()
        assert tests.difference[pair] == pytest.approx(mean, abs=1e-10)
        assert tests.error[pair] == pytest.approx(error, abs=1e-10)
        assert tests.freedom[pair] == pytest.approx(freedom, rel=1e-10)
        assert tests.class_part[pair] == pytest.approx(part, abs=1e-10)
        assert tests.half_width[pair] == pytest.approx(stats.t.ppf(0.975, freedom) * error)
        expected = max(p_value, seed_tests.p_values[pair])
        assert tests.p_values[pair] == pytest.approx(expected, abs=1e-10)


def test_for_classes_of_one_size_the_mean_squares_are_those_of_statsmodels():
    random = np.random.default_rng(5)
    totals, weights = draw(2, 5, np.full(8, 20), 0.05, 0.2, 0.1, random)
    difference = (totals[0] - totals[1]) / weights
    seed, label = np.indices(difference.shape)
    rows = pd.DataFrame({"y": difference.ravel(), "s": seed.ravel(), "c": label.ravel()})
    squares = anova_lm(smf.ols("y ~ C(s) + C(c)", rows).fit())["mean_sq"]
    variance = squares["C(s)"] + max(squares["C(c)"] - squares["Residual"], 0)
    tests = compare_classes(totals, weights)
    assert tests.error**2 == pytest.approx(variance / difference.size, abs=1e-12)


def test_the_difference_is_that_of_the_metric_a_mean_over_queries():
    sizes = np.array([1, 5, 40])
    random = np.random.default_rng(0)
    queries = random.uniform(size=(2, 4, 46))
    labels = np.repeat([0, 1, 2], sizes)
    totals = np.stack([queries[..., labels == c].sum(axis=2) for c in range(3)], axis=2)
    tests = compare_classes(totals, sizes.astype(float))
    assert tests.difference[0] == pytest.approx(queries[0].mean() - queries[1].mean(), abs=1e-12)


@pytest.mark.parametrize(
    ("seed_sd", "class_sd", "rest_sd"), [(0, 1, 1), (0.1, 1, 1), (1, 1, 1), (0, 0, 1)]
)
@pytest.mark.parametrize("largest", [1, 20])
def test_the_intervals_cover_the_true_difference(seed_sd, class_sd, rest_sd, largest):
    random = np.random.default_rng(0)
    covered = []
    for _ in range(250):
        sizes = 2 * random.integers(1, largest + 1, size=100)
        tests = compare_classes(*draw(2, 5, sizes, seed_sd, class_sd, rest_sd, random))
        covered.append(abs(tests.difference[0]) <= tests.half_width[0])
    assert 0.905 < np.mean(covered) < 0.985


@pytest.mark.parametrize(("seed_sd", "class_sd", "rest_sd"), [(1, 1, 1), (0, 1, 1)])
def test_eight_equal_losses_are_hardly_ever_separated(seed_sd, class_sd, rest_sd):
    """By Satterthwaite's approximation alone, in 14 % of the studies of the first kind."""
    random = np.random.default_rng(0)
    sizes = np.full(50, 20)
    wrong = [
        compare_classes(*draw(8, 5, sizes, seed_sd, class_sd, rest_sd, random)).is_separated.any()
        for _ in range(250)
    ]
    assert np.mean(wrong) < 0.09


@pytest.mark.parametrize(
    ("sizes", "is_tested"),
    [([20, 20], False), ([20, 20, 20], True), ([700, *[30] * 10], False), ([20] * 4, True)],
)
def test_too_few_classes_test_nothing(sizes, is_tested):
    random = np.random.default_rng(0)
    tests = compare_classes(*draw(3, 5, np.array(sizes), 1, 1, 1, random))
    assert np.isnan(tests.p_values).all() != is_tested
    assert np.isnan(tests.half_width).all() != is_tested
    assert tests.is_separated.any() <= is_tested


@pytest.mark.parametrize("sizes", [[20] * 3, [20] * 5, [300, 300, 300, 20, 20, 20]])
def test_the_intervals_of_few_classes_cover_the_true_difference(sizes):
    random = np.random.default_rng(1)
    covered = []
    for _ in range(600):
        tests = compare_classes(*draw(2, 5, np.array(sizes), 0.1, 1, 0.1, random))
        covered.append(abs(tests.difference[0]) <= tests.half_width[0])
    assert 0.9 < np.mean(covered) < 0.985


def test_classes_that_differ_widen_the_interval_and_seeds_do_not_help():
    random = np.random.default_rng(1)
    sizes = np.full(100, 20)
    alike, unlike = (
        compare_classes(*draw(2, 5, sizes, 0.01, class_sd, 0.01, random)) for class_sd in (0, 1)
    )
    assert unlike.error > 5 * alike.error
    assert alike.class_part < 0.5
    assert unlike.class_part > 0.95
    many = compare_classes(*draw(2, 40, sizes, 0.01, 1, 0.01, random))
    assert many.error > 0.5 * unlike.error


def test_two_seeds_or_one_class_are_not_enough():
    random = np.random.default_rng(0)
    two_seeds = compare_classes(*draw(2, 2, np.full(9, 20), 1, 1, 1, random))
    one_class = compare_classes(*draw(2, 5, np.full(1, 20), 1, 1, 1, random))
    for tests in (two_seeds, one_class):
        assert np.isnan(tests.p_values).all()
        assert not tests.is_separated.any()


def test_the_same_numbers_under_two_names_are_equal():
    totals, weights = draw(1, 5, np.full(9, 20), 1, 1, 1, np.random.default_rng(0))
    tests = compare_classes(np.concatenate([totals, totals]), weights)
    assert (tests.p_values, tests.difference) == (1, 0)


def test_classes_without_a_query_do_not_count():
    random = np.random.default_rng(0)
    totals, weights = draw(2, 5, np.full(9, 20), 1, 1, 1, random)
    more = np.concatenate([totals, np.zeros((2, 5, 3))], axis=2)
    tests = compare_classes(more, np.append(weights, [0.0] * 3))
    assert tests.error == compare_classes(totals, weights).error
