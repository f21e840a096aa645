"""Embeddings in a Poincaré ball are ranked by its distance, computed here by Möbius additions."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlbench.evaluation import numpy_blocks, numpy_near, numpy_ranking
from dmlbench.evaluation.clustering import nmi
from dmlbench.evaluation.evaluate import evaluate
from dmlbench.evaluation.kmeans import kmeans
from dmlbench.evaluation.placing import place
from dmlbench.evaluation.ranking import UnusableEmbeddings, rank, unit
from dmlbench.evaluation.verification import verification_accuracy
from dmlbench.study.poincare_ball import PoincareBall

PAPER = PoincareBall(curvature=0.1, radius=2.3)
BALLS = [PAPER, PoincareBall(0.01, 0.5), PoincareBall(1.0, 2.5)]


def poincare_distances(embeddings, ball):
    """All distances (N, N) in float64: clipping, exponential map, Möbius addition."""
    c = ball.curvature
    lengths = np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-300)
    clipped = np.minimum(lengths, ball.radius)
    points = np.tanh(np.sqrt(c) * clipped) * embeddings / (np.sqrt(c) * lengths)
    x, y = -points[:, None], points
    xy, xx, yy = (np.sum(a * b, axis=-1, keepdims=True) for a, b in ((x, y), (x, x), (y, y)))
    total = (1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y
    total /= 1 + 2 * c * xy + c**2 * xx * yy
    return 2 / np.sqrt(c) * np.arctanh(np.sqrt(c) * np.linalg.norm(total, axis=-1))


def of_many_lengths(count, dim, seed=0):
    """Some near the origin, some at it, some beyond every radius."""
    random = np.random.default_rng(seed)
    embeddings = random.normal(size=(count, dim))
    embeddings *= random.uniform(0, 5, size=(count, 1)) / np.sqrt(dim)
    embeddings[3] = 0
    return embeddings


def slow_ranks(distances, labels, queries, gallery):
    """Ranks of the relevant images, by a stable sort for each query."""
    for query in queries:
        others = [row for row in gallery if row != query]
        ranked = sorted(others, key=lambda row: (distances[query, row], row))
        yield [n for n, row in enumerate(ranked, 1) if labels[row] == labels[query]]


def by_query(ranking):
    return [part.tolist() for part in np.split(ranking.ranks, ranking.counts.cumsum()[:-1])]


@pytest.mark.parametrize("ball", BALLS)
def test_distances_are_those_of_the_ball(ball):
    embeddings = of_many_lengths(60, 5)
    placed = place(embeddings.astype(np.float32), ball)
    similarities = placed.queries.astype(float) @ placed.gallery.T
    expected = poincare_distances(embeddings, ball)
    apart = expected > 0.1
    np.testing.assert_allclose(placed.distances(similarities)[apart], expected[apart], rtol=2e-3)
    assert np.abs(similarities).max() < 1 + 1e-6


@pytest.mark.parametrize("device", ["cpu", "cpu:0"], ids=["numpy", "torch"])
@pytest.mark.parametrize("ball", BALLS)
def test_the_ranks_are_those_by_hyperbolic_distance(ball, device):
    embeddings = of_many_lengths(300, 8)
    labels = np.arange(300) % 20
    placed, distances = place(embeddings, ball), poincare_distances(embeddings, ball)
    queries, gallery = np.arange(0, 300, 7), np.arange(0, 300, 2)
    ranking = rank(
        placed.gallery, labels, queries, gallery, query_vectors=placed.queries, device=device
    )
    expected = [*slow_ranks(distances, labels, queries, gallery)]
    # The vectors are float32: images at nearly equal distances may be exchanged
    moved = np.abs(ranking.ranks - np.concatenate(expected))
    assert moved.max() <= 1
    assert moved.mean() < 0.002


@given(st.integers(0, 2**31), st.integers(0, 2), st.sampled_from([0, 10_000]))
@settings(max_examples=60, deadline=None)
def test_equal_images_tie_and_every_backend_ranks_alike(seed, levels, few):
    random = np.random.default_rng(seed)
    points = np.array([[0, 0], [0.5, 0.1], [1.1, 0], [0.2, 1.5], [-2, 2], [3, 1.0]])
    embeddings = points[random.integers(len(points), size=24)]
    embeddings[:2] = points[:2]  # not all are the same
    labels = random.integers(4, size=24)
    placed = place(embeddings, PAPER)
    queries, gallery = (np.flatnonzero(random.random(24) < 0.7) for _ in range(2))
    if not len(queries) or not len(gallery):
        return
    tree = [np.array([7, 7, 3, 3])[labels], np.array([1, 1, 1, 2])[labels]][:levels]
    with (
        mock.patch.object(numpy_ranking, "BLOCK", 40),
        mock.patch.object(numpy_blocks, "CHUNK", 40),
        mock.patch.multiple(numpy_near, FEW=few, BUCKETS=8, PER_IMAGE=1),
    ):
        ranking, by_torch = (
            rank(
                placed.gallery,
                labels,
                queries,
                gallery,
                query_vectors=placed.queries,
                levels=tree,
                device=device,
            )
            for device in ("cpu", "cpu:0")
        )
    if not ranking.counts.any():
        return
    # The distances of equal points are equal here: equal points have equal numbers
    expected = slow_ranks(poincare_distances(embeddings, PAPER).round(9), labels, queries, gallery)
    assert by_query(ranking) == by_query(by_torch) == list(expected)
    if levels:
        for one, other in zip(ranking.graded, by_torch.graded, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12)


def test_beyond_the_radius_the_ranking_is_that_of_cosines():
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(200, 6))
    embeddings *= random.uniform(2.4, 9, size=(200, 1)) / np.linalg.norm(
        embeddings, axis=1, keepdims=True
    )
    labels, rows = np.arange(200) % 10, np.arange(200)
    placed = place(embeddings, PAPER)
    np.testing.assert_allclose(placed.vectors, unit(embeddings), atol=1e-6)
    hyperbolic = rank(placed.gallery, labels, rows, rows, query_vectors=placed.queries)
    cosine = rank(unit(embeddings), labels, rows, rows)
    assert np.mean(hyperbolic.ranks == cosine.ranks) > 0.999


def test_all_metrics_are_of_the_ball(metric_settings):
    embeddings = of_many_lengths(240, 6).astype(np.float32)
    ids, labels = np.arange(240), np.arange(240) % 12
    protocols = {
        "protocol": np.full(240, "zero_shot"),
        "id": ids,
        "role": np.full(240, "both"),
        "repetition": np.zeros(240),
    }
    pairs = {
        "first": np.arange(100),
        "second": np.arange(100) + 120,
        "same": np.arange(100) % 3 == 0,
        "fold": np.arange(100) % 5,
    }
    index = {"id": ids, "label": labels, "group": labels // 3}
    scores = evaluate(
        embeddings,
        ids,
        index,
        protocols,
        metric_settings,
        pairs=pairs,
        levels=["group"],
        ball=PAPER,
    )
    found = {row["metric"]: row["value"] for row in scores.rows}
    distances = poincare_distances(embeddings.astype(float), PAPER)
    nearest = (distances + 1e9 * np.eye(240)).argmin(axis=1)
    assert found["recall@1"] == pytest.approx(np.mean(labels[nearest] == labels), abs=0.01)
    groups = labels // 3
    right = np.mean(groups[nearest] == groups)
    assert found["recall@1 group"] == pytest.approx(right, abs=0.01)
    # a verification by the distances themselves
    is_same = pairs["same"]
    close = -distances[pairs["first"], pairs["second"]]
    expected, _ = verification_accuracy(close, is_same, pairs["fold"])
    assert found["verification_accuracy"] == pytest.approx(expected)
    cosine = evaluate(embeddings + 1e-6, ids, index, protocols, metric_settings)
    assert found["map@r"] != cosine.rows[4]["value"]


def test_k_means_clusters_the_clipped_embeddings(metric_settings):
    embeddings, labels = of_many_lengths(90, 4).astype(np.float32), np.arange(90) % 5
    lengths = np.linalg.norm(embeddings.astype(float), axis=1, keepdims=True)
    clipped = embeddings / np.maximum(lengths, 2.3)
    vectors = place(embeddings, PAPER).vectors
    np.testing.assert_allclose(vectors, clipped, atol=1e-7)
    ids = np.arange(90)
    columns = {"id": ids, "protocol": ["p"] * 90, "role": ["both"] * 90, "repetition": 0 * ids}
    scores = evaluate(
        embeddings, ids, {"id": ids, "label": labels}, columns, metric_settings, ball=PAPER
    )
    found = {row["metric"]: row["value"] for row in scores.rows}
    assert found["nmi"] == pytest.approx(nmi(labels, kmeans(vectors, 5, 0, 20, 1)))
    assert found["nmi"] != pytest.approx(nmi(labels, kmeans(unit(embeddings + 1), 5, 0, 20, 1)))


def test_what_cannot_be_ranked_is_refused_and_the_origin_is_not():
    with pytest.raises(UnusableEmbeddings, match="1 of 2 embeddings hold NaN"):
        place([[1.0, 0.0], [np.nan, 0.0]], PAPER)
    for same in (np.zeros((4, 3)), np.ones((4, 3)), np.ones((4, 3)) * [[3], [4], [5], [6]]):
        with pytest.raises(UnusableEmbeddings, match="collapsed"):
            place(same, PAPER)
    assert np.isfinite(place([[0.0, 0.0], [1.0, 0.0]], PAPER).gallery).all()
    place(np.ones((4, 3)) * [[0.1], [0.2], [0.3], [0.4]], PAPER)  # one direction, other lengths
