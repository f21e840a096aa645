from fractions import Fraction
from math import comb, log

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

from dmlbench.evaluation.clustering import ami, nmi


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 9), st.integers(0, 4)), min_size=1, max_size=80))
def test_nmi_equals_scikit_learn(pairs):
    labels, clusters = zip(*pairs, strict=True)
    assert nmi(labels, clusters) == pytest.approx(
        normalized_mutual_info_score(labels, clusters), abs=1e-12
    )


def test_nmi_equals_scikit_learn_on_many_classes():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 500, size=5000)
    clusters = np.where(rng.random(5000) < 0.5, labels, rng.integers(0, 500, size=5000))
    assert nmi(labels, clusters) == pytest.approx(
        normalized_mutual_info_score(labels, clusters), abs=1e-12
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 9), st.integers(0, 4)), min_size=1, max_size=80))
@example([(0, 0), (1, 0), (2, 0)])
@example([(0, 0), (0, 1), (0, 2)])
@example([(0, 0), (0, 0)])
@example([(0, 0), (1, 1), (2, 1)])
def test_ami_equals_scikit_learn(pairs):
    labels, clusters = zip(*pairs, strict=True)
    if len(set(labels)) == len(set(clusters)) == len(pairs):
        assert ami(labels, clusters) == 1  # 0 / 0, and up to rounding there
    else:
        assert ami(labels, clusters) == pytest.approx(
            adjusted_mutual_info_score(labels, clusters), abs=1e-12
        )


def test_ami_equals_scikit_learn_on_many_classes():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 100, size=1000)
    clusters = np.where(rng.random(1000) < 0.5, labels, rng.integers(0, 100, size=1000) ** 2 // 100)
    assert ami(labels, clusters) == pytest.approx(
        adjusted_mutual_info_score(labels, clusters), abs=1e-12
    )


def test_the_ami_of_large_blocks_does_not_overflow():
    labels, clusters = np.random.default_rng(0).integers(0, 2, size=(2, 10_000))
    assert ami(labels, clusters) == pytest.approx(
        adjusted_mutual_info_score(labels, clusters), abs=1e-9
    )


def test_ami_equals_exact_arithmetic_where_logarithms_of_factorials_lose_digits():
    # 2 x 2 blocks; a pair of blocks has n images in common with the hypergeometric probability.
    total, sizes = 20_000, ((19_950, 50), (19_920, 80))
    labels, clusters = np.arange(total) < sizes[0][0], (np.arange(total) + 30) % total < sizes[1][0]
    expected = Fraction(0)
    for a in sizes[0]:
        for b in sizes[1]:
            for n in range(max(1, a + b - total), min(a, b) + 1):
                chance = Fraction(comb(b, n) * comb(total - b, a - n), comb(total, a))
                expected += chance * n * Fraction(log(total * n / (a * b)))
    expected = float(expected / total)

    def entropy(sizes):
        return -sum(size / total * log(size / total) for size in sizes)

    cells = [[int(np.sum((labels == i) & (clusters == j))) for j in (1, 0)] for i in (1, 0)]
    shared = sum(
        n / total * log(total * n / (sizes[0][i] * sizes[1][j]))
        for i, row in enumerate(cells)
        for j, n in enumerate(row)
        if n
    )
    mean = (entropy(sizes[0]) + entropy(sizes[1])) / 2
    assert ami(labels, clusters) == pytest.approx(
        (shared - expected) / (mean - expected), abs=1e-12
    )


def test_ami_is_about_zero_for_chance_where_nmi_is_not():
    labels, clusters = np.random.default_rng(0).integers(0, 200, size=(2, 1000))
    assert nmi(labels, clusters) > 0.6
    assert abs(ami(labels, clusters)) < 0.02


def test_nmi_is_one_for_renamed_classes_and_zero_for_independent_ones():
    assert nmi([0, 0, 1, 2], [7, 7, 3, 5]) == pytest.approx(1, abs=1e-15)
    assert nmi([0, 0, 1, 1], [0, 1, 0, 1]) == pytest.approx(0, abs=1e-15)
