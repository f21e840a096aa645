import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from dmlbench.evaluation.clustering import kmeans, nmi
from dmlbench.evaluation.neighbours import unit


@given(st.lists(st.tuples(st.integers(-3, 9), st.integers(0, 4)), min_size=1, max_size=80))
def test_nmi_equals_scikit_learn(pairs):
    labels, found = zip(*pairs, strict=True)
    assert nmi(labels, found) == pytest.approx(
        normalized_mutual_info_score(labels, found), abs=1e-12
    )


def test_nmi_equals_scikit_learn_on_many_classes():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 500, size=5000)
    found = np.where(rng.random(5000) < 0.5, labels, rng.integers(0, 500, size=5000))
    assert nmi(labels, found) == pytest.approx(
        normalized_mutual_info_score(labels, found), abs=1e-12
    )


def test_nmi_is_one_for_renamed_classes_and_zero_for_independent_ones():
    assert nmi([0, 0, 1, 2], [7, 7, 3, 5]) == pytest.approx(1, abs=1e-15)
    assert nmi([0, 0, 1, 1], [0, 1, 0, 1]) == pytest.approx(0, abs=1e-15)


def test_kmeans_finds_every_class_of_one_point_each():
    labels = np.arange(3000) % 100
    assert nmi(labels, kmeans(np.eye(100, dtype=np.float32)[labels], 100, 0, 20, 1)) == 1


def test_kmeans_is_a_function_of_the_seed_and_of_no_thread_count(clusters):
    vectors = unit(clusters(2000, 40, spread=1.5)[0])
    first = kmeans(vectors, 40, seed=3, iterations=20, restarts=1, threads=1)
    np.testing.assert_array_equal(first, kmeans(vectors, 40, 3, 20, 1, threads=1))
    np.testing.assert_array_equal(first, kmeans(vectors, 40, 3, 20, 1, threads=2))
    assert nmi(first, kmeans(vectors, 40, seed=4, iterations=20, restarts=1)) < 0.99


def test_more_restarts_and_iterations_never_end_further_from_the_centres(clusters):
    vectors = unit(clusters(2000, 40, spread=1.5)[0])

    def distortion(found):
        return sum(
            np.square(vectors[found == c] - vectors[found == c].mean(axis=0)).sum()
            for c in np.unique(found)
        )

    rough = distortion(kmeans(vectors, 40, 0, iterations=1, restarts=1))
    finer = distortion(kmeans(vectors, 40, 0, iterations=20, restarts=1))
    finest = distortion(kmeans(vectors, 40, 0, iterations=20, restarts=8))
    assert finest < finer < rough
