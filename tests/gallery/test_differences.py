"""Queries that tell losses apart, and the scores of single classes."""

from collections import defaultdict
from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlbench.gallery.differences import ENOUGH, contested_queries, mean_by_class


@settings(deadline=None)
@given(st.integers(2, 5), st.integers(1, 60), st.randoms(use_true_random=False))
def test_each_two_losses_have_enough_queries_that_tell_them_apart(losses, queries, random):
    right = np.array([[random.random() < 0.5 for _ in range(queries)] for _ in range(losses)])
    labels = np.array([random.randrange(4) for _ in range(queries)])
    chosen = contested_queries(right, labels, most=10_000)
    assert len(set(chosen)) == len(chosen)
    for first, second in permutations(range(losses), 2):
        tells_apart = right[first] & ~right[second]
        assert tells_apart[chosen].sum() >= min(ENOUGH, tells_apart.sum())


def test_what_divides_the_losses_evenly_comes_first_and_classes_take_turns():
    right = np.array(
        [[1, 1, 1, 1, 0, 1], [0, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 1], [1, 0, 0, 0, 1, 1]]
    )
    labels = np.array([0, 0, 0, 1, 1, 1])
    assert contested_queries(right == 1, labels, most=6) == [1, 3, 2, 0, 4, 5]
    assert contested_queries(right == 1, labels, most=2) == [1, 3]


def test_queries_on_which_all_agree_are_left_out():
    right = np.array([[True, False, True], [True, False, False]])
    assert contested_queries(right, np.zeros(3, int), most=9) == [2]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.25, 1.0, np.nan]))))
def test_means_by_class_are_those_of_loops(scored):
    by_class = defaultdict(list)
    for label, score in scored:
        if not np.isnan(score):
            by_class[label].append(score)
    wanted = [np.mean(by_class[label]) if by_class[label] else np.nan for label in range(5)]
    labels = np.array([label for label, _ in scored], dtype=np.int64)
    scores = np.array([score for _, score in scored], dtype=np.float64)
    parts = [labels[:3], labels[3:]], [scores[:3], scores[3:]]  # two runs
    np.testing.assert_allclose(mean_by_class(*parts, 5), wanted, rtol=1e-12)
