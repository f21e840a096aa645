import tracemalloc
from collections import Counter
from functools import partial
from itertools import permutations
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import chisquare
from sklearn.cluster import KMeans, kmeans_plusplus

from dmlbench.evaluation.clustering import nmi
from dmlbench.evaluation.faiss_kmeans import FaissPoints
from dmlbench.evaluation.kmeans import Clustering, cluster, kmeans
from dmlbench.evaluation.numpy_kmeans import NumpyPoints
from dmlbench.evaluation.ranking import unit
from dmlbench.evaluation.torch_kmeans import TorchPoints

BACKENDS = {
    "numpy": NumpyPoints,
    "torch": partial(TorchPoints, device="cpu"),
    "faiss": partial(FaissPoints, device="cpu"),
}


@pytest.fixture(params=BACKENDS.values(), ids=BACKENDS)
def points_of(request):
    """The function from vectors and k to the `Points` of a backend."""
    return request.param


def textbook(vectors, centroids, iterations):
    """Lloyd's algorithm in float64, every distance in every iteration: clusters and centroids."""
    vectors, centroids = vectors.astype(np.float64), centroids.astype(np.float64)
    assigned = cdist(vectors, centroids).argmin(axis=1)
    for _ in range(iterations):
        farthest = iter(np.argsort(-np.linalg.norm(vectors - centroids[assigned], axis=1)))
        for column in range(len(centroids)):
            if not np.any(assigned == column):
                row = next(row for row in farthest if np.sum(assigned == assigned[row]) > 1)
                assigned[row] = column
        centroids = np.stack([vectors[assigned == c].mean(axis=0) for c in range(len(centroids))])
        before, assigned = assigned, cdist(vectors, centroids).argmin(axis=1)
        if np.array_equal(before, assigned):
            break
    return assigned, centroids


def inertia(vectors, clusters):
    return sum(
        np.square(
            vectors[clusters == c] - vectors[clusters == c].mean(axis=0, dtype=np.float64)
        ).sum()
        for c in np.unique(clusters)
    )


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([*BACKENDS]),
    st.integers(2, 300),
    st.integers(1, 6),
    st.sampled_from([2, 3, 17]),
    st.floats(0.05, 3),
    st.integers(1, 25),
    st.randoms(use_true_random=False),
)
def test_the_clusters_equal_those_of_textbook_lloyd_from_the_same_seeds(
    backend, n, per_cluster, dim, spread, iterations, random
):
    rng = np.random.default_rng(random.getrandbits(32))
    k = max(1, n // per_cluster)
    vectors = rng.normal(size=(k, dim))[rng.integers(k, size=n)] + spread * rng.normal(
        size=(n, dim)
    )
    points = BACKENDS[backend](vectors.astype(np.float32), k)
    clustering = Clustering(points)
    clustering.seed(rng)
    seeds = np.asarray(points.centroids).copy()
    assigned, centroids = textbook(points.vectors, seeds, 0)
    np.testing.assert_array_equal(clustering.assigned, assigned)

    clustering.iterate(iterations)
    assigned, centroids = textbook(points.vectors, seeds, iterations)
    np.testing.assert_array_equal(clustering.assigned, assigned)
    np.testing.assert_allclose(points.centroids, centroids, atol=1e-5)
    exact = np.linalg.norm(points.vectors - centroids[assigned], axis=1) ** 2
    np.testing.assert_allclose(clustering.distances, exact, atol=1e-4)


def test_the_clusters_equal_those_of_textbook_lloyd_on_many_overlapping_clusters(
    points_of, clusters
):
    points = points_of(unit(clusters(4000, 300, spread=1.0)[0]), 300)
    clustering = Clustering(points)
    clustering.seed(np.random.default_rng(0))
    expected = textbook(points.vectors, np.asarray(points.centroids).copy(), 20)[0]
    clustering.iterate(20)
    np.testing.assert_array_equal(clustering.assigned, expected)


def test_distances_equal_those_of_float64(points_of):
    rng = np.random.default_rng(0)
    points = points_of(unit(rng.normal(size=(300, 40))), 50)
    points.place(np.arange(50), rng.permutation(300)[:50])
    rows, columns = rng.permutation(300)[:200], rng.permutation(50)[:30]
    vectors = points.vectors.astype(np.float64)
    squares = cdist(vectors[rows], np.asarray(points.centroids)[columns], "sqeuclidean")
    nearest, first, second = points.nearest(rows, columns)
    np.testing.assert_array_equal(nearest, columns[squares.argmin(axis=1)])
    np.testing.assert_allclose([first, second], np.sort(squares)[:, :2].T, atol=1e-6)
    assert np.all(points.nearest(rows, columns[:1])[2] == np.inf)
    np.testing.assert_allclose(points.distances(rows[:30], columns), np.diag(squares), atol=1e-6)
    expected = cdist(vectors[rows], vectors[rows], "sqeuclidean")
    np.testing.assert_allclose(points.pairwise_distances(rows), expected, atol=1e-6)


def test_an_empty_cluster_moves_onto_the_vector_that_is_farthest_from_its_centroid(points_of):
    vectors = np.array([[0], [1], [2], [10], [11], [30]], dtype=np.float32)
    points = points_of(vectors, 4)
    clustering = Clustering(points)
    clustering.place(np.array([0, 0, 0, 3]))
    clustering.iterate(1)
    # The distance of 30 from 10 is 20, and that of 2 from 0 is 2.
    assert clustering.assigned.tolist() == [0, 0, 2, 3, 3, 1]
    np.testing.assert_allclose(np.ravel(points.centroids), [0.5, 30, 2, 10.5])


def test_the_only_vector_of_a_cluster_is_not_taken_to_fill_another_one():
    vectors = np.array([[0], [1], [100]], dtype=np.float32)
    clustering = Clustering(NumpyPoints(vectors, 3))
    clustering.place(np.array([0, 2, 2]))
    clustering.distances[2] = 5  # farther from its centroid than the other vectors
    clustering.iterate(1)
    assert sorted(clustering.assigned.tolist()) == [0, 1, 2]


def test_a_large_part_that_all_vectors_share_costs_no_digits():
    rng = np.random.default_rng(0)
    classes = rng.integers(20, size=400)
    narrow = np.ones((400, 64)) + 1e-4 * rng.normal(size=(20, 64))[classes]
    clusters = kmeans(
        (narrow + 1e-5 * rng.normal(size=narrow.shape)).astype(np.float32), 20, 0, 20, 3
    )
    assert nmi(classes, clusters) > 0.95


class PlainPoints:
    """Points for seeding, computed in the plain way, without threads."""

    rounding = 0

    def __init__(self, vectors, k):
        self.vectors, self.k, self.order = vectors, k, []

    def place(self, columns, rows):
        assert len(self.order) == columns[0]
        self.order += rows.tolist()

    def pairwise_distances(self, rows):
        return cdist(self.vectors[rows], self.vectors[rows], "sqeuclidean")

    def distances(self, rows, columns):
        return self._squares(rows, np.arange(len(self.order)))[np.arange(len(rows)), columns]

    def nearest(self, rows, columns):
        squares = self._squares(rows, columns)
        first, second = np.sort(np.column_stack([squares, np.full(len(rows), np.inf)])).T[:2]
        return columns[squares.argmin(axis=1)], first, second

    def _squares(self, rows, columns):
        centroids = self.vectors[np.array(self.order)[columns]]
        return cdist(self.vectors[rows], centroids, "sqeuclidean")


def test_seeds_are_drawn_with_the_probabilities_of_k_means_plus_plus():
    # Two vectors are equal. The distances differ so much that most candidates are rejected.
    vectors = np.array([[0, 0], [1, 0], [1, 0], [8, 1], [8, 3]], dtype=np.float32)
    squares = cdist(vectors, vectors, "sqeuclidean")
    expected = {}
    for first, second, third in permutations(range(len(vectors)), 3):
        by_first, by_both = squares[first], np.minimum(squares[first], squares[second])
        expected[first, second, third] = (
            by_first[second] / by_first.sum() * by_both[third] / by_both.sum() / len(vectors)
        )
    assert sum(expected.values()) == pytest.approx(1)

    drawn = Counter()
    for seed in range(6000):
        points = PlainPoints(vectors, 3)
        Clustering(points).seed(np.random.default_rng(seed))
        drawn[tuple(points.order)] += 1
    assert all(expected[order] > 0 for order in drawn)
    frequent = [order for order, chance in expected.items() if chance > 0.001]
    counts = np.array([drawn[order] for order in frequent])
    chances = np.array([expected[order] for order in frequent])
    rest, rest_chance = drawn.total() - counts.sum(), 1 - chances.sum()
    assert chisquare([*counts, rest], [*(chances * 6000), rest_chance * 6000]).pvalue > 0.01


def test_seeds_of_many_blocks_are_as_good_as_scikit_learn_s(clusters):
    vectors = unit(clusters(2000, 200, spread=0.3)[0])

    def ours(seed):
        clustering = Clustering(NumpyPoints(vectors, 200))
        clustering.seed(np.random.default_rng(seed))
        return clustering.distances.sum()

    def reference(seed):
        centres, _ = kmeans_plusplus(vectors, 200, random_state=seed, n_local_trials=1)
        return cdist(vectors, centres, "sqeuclidean").min(axis=1).sum()

    own_inertia, reference_inertia = (
        np.array([inertia_of(seed) for seed in range(12)]) for inertia_of in (ours, reference)
    )
    error = sqrt((own_inertia.var(ddof=1) + reference_inertia.var(ddof=1)) / 12)
    assert abs(own_inertia.mean() - reference_inertia.mean()) < 3 * error
    assert error < 0.03 * reference_inertia.mean()


def test_the_inertia_is_as_low_as_scikit_learn_s_from_seeds_of_one_draw_each(clusters):
    for spread in (0.3, 1.0):
        vectors = unit(clusters(1500, 60, spread=spread)[0])

        def reference(seed, vectors=vectors):
            seeds, _ = kmeans_plusplus(vectors, 60, random_state=seed, n_local_trials=1)
            return KMeans(60, init=seeds, n_init=1, max_iter=20, tol=0).fit(vectors).inertia_

        own_inertia = np.array(
            [inertia(vectors, kmeans(vectors, 60, seed, 20, 1)) for seed in range(12)]
        )
        reference_inertia = np.array([reference(seed) for seed in range(12)])
        error = sqrt((own_inertia.var(ddof=1) + reference_inertia.var(ddof=1)) / 12)
        assert (
            abs(own_inertia.mean() - reference_inertia.mean())
            < 3 * error
            < 0.2 * reference_inertia.mean()
        )


def test_all_backends_give_the_same_clusters_except_for_ties(clusters):
    # Any device that is not called "cpu" is one of torch.
    vectors = unit(clusters(3000, 100, spread=0.5)[0])
    by_numpy, by_torch = (kmeans(vectors, 100, 0, 20, 3, device=name) for name in ("cpu", "cpu:0"))
    np.testing.assert_array_equal(by_numpy, by_torch)

    noise = unit(np.random.default_rng(0).normal(size=(3000, 64)))
    labels = np.arange(3000) % 300
    by_numpy, by_torch, by_faiss = (
        cluster(points_of(noise, 300), 0, 20, 1) for points_of in BACKENDS.values()
    )
    np.testing.assert_array_equal(by_faiss, by_torch)
    assert nmi(labels, by_numpy) == pytest.approx(nmi(labels, by_torch), abs=0.01)


def test_k_means_separates_classes_that_are_single_points(points_of):
    labels = np.arange(3000) % 100
    assert (
        nmi(labels, cluster(points_of(np.eye(100, dtype=np.float32)[labels], 100), 0, 20, 1)) == 1
    )


def test_each_vector_is_a_cluster_if_there_are_fewer_distinct_vectors_than_clusters(points_of):
    rng = np.random.default_rng(0)
    distinct = unit(rng.normal(size=(30, 24)) * 1e-3 + 1)  # nearly the same direction
    classes = rng.integers(30, size=2000)
    clusters = cluster(points_of(distinct[classes], 100), 0, 20, 3)
    assert nmi(classes, clusters) == 1
    assert clusters.max() < 30


def test_k_means_separates_a_few_distinct_vectors_among_many_collapsed_ones(points_of):
    vectors = np.full((3000, 64), 1 / 8, dtype=np.float32)
    vectors[0, 0] += np.spacing(vectors[0, 0])
    vectors[1:6] = unit(np.random.default_rng(0).normal(size=(5, 64)))
    clusters = cluster(points_of(vectors, 500), 0, 20, 1)
    assert len(np.unique(clusters[:7])) == 7
    assert len(np.unique(clusters[6:])) == 1


@pytest.mark.parametrize("k", [1, 50])
def test_there_may_be_one_cluster_or_as_many_clusters_as_vectors(points_of, k):
    vectors = unit(np.random.default_rng(0).normal(size=(50, 8)))
    assert len(np.unique(cluster(points_of(vectors, k), 0, 20, 2))) == k


def test_the_clusters_depend_on_the_seed_and_not_on_the_threads(clusters, monkeypatch):
    monkeypatch.setattr("dmlbench.evaluation.numpy_kmeans.ROWS", 64)  # 32 blocks
    vectors = unit(clusters(2000, 40, spread=1.5)[0])
    first = kmeans(vectors, 40, seed=3, iterations=20, restarts=1, threads=1)
    np.testing.assert_array_equal(first, kmeans(vectors, 40, 3, 20, 1, threads=1))
    np.testing.assert_array_equal(first, kmeans(vectors, 40, 3, 20, 1, threads=3))
    assert nmi(first, kmeans(vectors, 40, seed=4, iterations=20, restarts=1)) < 0.99


def test_the_clusters_do_not_depend_on_the_size_of_blocks(clusters, points_of, monkeypatch):
    points = points_of(unit(clusters(1000, 70, spread=0.7)[0]), 70)
    whole = cluster(points, 0, 20, 2)
    for backend in ("numpy", "torch"):
        monkeypatch.setattr(f"dmlbench.evaluation.{backend}_kmeans.ROWS", 37)
        monkeypatch.setattr(f"dmlbench.evaluation.{backend}_kmeans.BLOCK", 500)
    np.testing.assert_array_equal(whole, cluster(points, 0, 20, 2))


def test_more_restarts_and_iterations_lower_the_inertia(clusters, points_of):
    points = points_of(unit(clusters(2000, 40, spread=1.5)[0]), 40)
    rough, finer, finest = (
        inertia(points.vectors, cluster(points, 0, iterations, restarts))
        for iterations, restarts in [(1, 1), (20, 1), (20, 8)]
    )
    assert finest < finer < rough


def test_distances_that_cannot_change_an_assignment_are_not_computed(clusters):
    computed = []

    class Counted(NumpyPoints):
        def nearest(self, rows, columns):
            computed.append(len(rows) * len(columns))
            return super().nearest(rows, columns)

    clustering = Clustering(Counted(unit(clusters(3000, 500)[0]), 500))
    clustering.seed(np.random.default_rng(0))
    assert sum(computed) == 3000 * 500
    computed.clear()
    clustering.iterate(20)
    assert sum(computed) < 5 * 3000 * 500


def test_all_distances_are_never_held_at_once():
    vectors = unit(np.random.default_rng(0).normal(size=(20_000, 8)))
    tracemalloc.start()
    kmeans(vectors, 2_000, 0, 2, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6 < 4 * 20_000 * 2_000
