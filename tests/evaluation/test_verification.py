from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlbench.evaluation.verification import best_threshold, verification_accuracy


def slow_threshold(similarity, same):
    """Try every gap between two similarities, from the top."""
    values = sorted(set(similarity), reverse=True)
    middles = [(high + low) / 2 for high, low in pairwise(values)]
    best, most = None, -1
    for threshold in [float("inf"), *middles, -float("inf")]:
        count = sum((s >= threshold) == bool(t) for s, t in zip(similarity, same, strict=True))
        if count > most:
            best, most = threshold, count
    return best


def slow_accuracy(similarity, same, fold):
    pairs = list(zip(similarity, same, fold, strict=True))
    accuracies = []
    for number in sorted(set(fold)):
        others = [(s, t) for s, t, f in pairs if f != number]
        threshold = slow_threshold(*zip(*others, strict=True))
        own = [(s, t) for s, t, f in pairs if f == number]
        accuracies.append(sum((s >= threshold) == bool(t) for s, t in own) / len(own))
    mean = sum(accuracies) / len(accuracies)
    variance = sum((a - mean) ** 2 for a in accuracies) / (len(accuracies) - 1)
    return mean, (variance / len(accuracies)) ** 0.5


pair = st.tuples(st.integers(-8, 8).map(lambda n: n / 8), st.booleans(), st.integers(0, 4))


@given(st.lists(pair, min_size=2, max_size=60).filter(lambda p: len({f for *_, f in p}) > 1))
@settings(max_examples=300, deadline=None)
def test_the_accuracy_equals_a_slow_search_with_many_ties_and_uneven_folds(pairs):
    similarity, same, fold = map(np.array, zip(*pairs, strict=True))
    result = verification_accuracy(similarity, same, fold)
    assert result == pytest.approx(slow_accuracy(*zip(*pairs, strict=True)), abs=1e-12)
    assert best_threshold(similarity, same) == slow_threshold(similarity.tolist(), same.tolist())


def test_the_accuracy_equals_a_slow_search_without_ties():
    random = np.random.default_rng(0)
    same = random.random(600) < 0.5
    similarity = (random.normal(size=600) + same).astype(np.float32)
    fold = random.permutation(np.arange(600) % 10)
    result = verification_accuracy(similarity, same, fold)
    assert 0.6 < result[0] < 0.8
    values = similarity.astype(float).tolist()
    assert result == pytest.approx(slow_accuracy(values, same.tolist(), fold.tolist()), abs=1e-12)


def test_a_fold_is_judged_by_the_threshold_of_the_other_folds():
    # fold 0 by itself would choose a threshold of 0.5; any three folds together choose 0
    similarity = np.array([0.6, 0.4] + 3 * [0.1, -0.1])
    same = np.array(4 * [True, False])
    accuracy, error = verification_accuracy(similarity, same, np.arange(8) // 2)
    assert accuracy == pytest.approx((0.5 + 1 + 1 + 1) / 4)
    assert error == pytest.approx(np.std([0.5, 1, 1, 1], ddof=1) / 2)


def test_separable_pairs_are_all_judged_correctly():
    random = np.random.default_rng(1)
    same = np.arange(200) % 2 == 0
    similarity = np.where(same, random.uniform(0.3, 1, 200), random.uniform(-1, 0.2, 200))
    assert verification_accuracy(similarity, same, np.arange(200) // 20) == (1.0, 0.0)


def test_the_threshold_is_infinite_if_all_pairs_are_of_one_kind():
    similarity = np.random.default_rng(1).uniform(-1, 1, 200)
    assert best_threshold(similarity, np.ones(200, bool)) == -np.inf
    assert best_threshold(similarity, np.zeros(200, bool)) == np.inf


def test_equal_similarities_score_at_chance():
    same = np.arange(200) % 2 == 0
    assert verification_accuracy(np.ones(200), same, np.arange(200) // 20)[0] == 0.5


def test_a_single_fold_is_refused():
    with pytest.raises(ValueError, match=r"folds of pairs: 1\. .* 2 or more"):
        verification_accuracy(np.ones(4), np.ones(4, bool), np.zeros(4, int))
