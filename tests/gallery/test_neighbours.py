"""The nearest images, against loops in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlbench.datasets.store.part import Part
from dmlbench.evaluation.evaluate import evaluate
from dmlbench.gallery import neighbours
from dmlbench.gallery.neighbours import find_neighbours


def directions(count):
    """Unit vectors with coordinates that float32 multiplies without rounding, and many ties."""
    vectors = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)], dtype=np.float32)
    return vectors[np.arange(count) % 4]


def nearest_by_loops(vectors, labels, query, gallery, k):
    others = [row for row in gallery if row != query]
    cosines = {row: float(vectors[query].astype(float) @ vectors[row]) for row in others}
    ranked = sorted(others, key=lambda row: (-cosines[row], row))
    own = [row for row in ranked if labels[row] == labels[query]]
    other = [row for row in ranked if labels[row] != labels[query]]
    margin = cosines[own[0]] - cosines[other[0]] if own and other else np.nan
    return ranked[:k], own[0] if own else -1, margin


@settings(deadline=None)
@given(st.data())
def test_neighbours_are_those_of_a_sort_by_cosine_and_row(data):
    count = data.draw(st.integers(3, 24))
    order = data.draw(st.permutations(range(count)))
    vectors = directions(count)[order]
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    is_query = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    queries = np.flatnonzero(is_query) if any(is_query) else np.arange(count)
    gallery = np.arange(count)[data.draw(st.integers(0, 1)) :]
    k = data.draw(st.integers(1, 5))
    found = find_neighbours(vectors, labels, queries, gallery, k)
    for place, query in enumerate(queries):
        nearest, own, margin = nearest_by_loops(vectors, labels, query, gallery, k)
        least = min(len(nearest), found.nearest.shape[1])
        assert found.nearest[place, :least].tolist() == nearest[:least]
        assert found.own[place] == own
        assert found.margins[place] == pytest.approx(margin, nan_ok=True)


def test_parts_of_the_queries_give_the_same_as_all_at_once(monkeypatch):
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(200, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels, rows = np.arange(200) // 5, np.arange(200)
    at_once = find_neighbours(vectors, labels, rows, rows, 7)
    monkeypatch.setattr(neighbours, "MOST_SIMILARITIES", 1000)
    in_parts = find_neighbours(vectors, labels, rows, rows, 7)
    np.testing.assert_array_equal(in_parts.nearest, at_once.nearest)
    np.testing.assert_array_equal(in_parts.own, at_once.own)


def test_the_share_of_right_neighbours_is_recall_at_1(glyphs):
    test = glyphs.split("test", Part(0.2))
    generator = np.random.default_rng(1)
    vectors = generator.normal(size=(test.labels.max() + 1, 16))[test.labels]
    vectors = (vectors + 2 * generator.normal(size=vectors.shape)).astype(np.float32)
    settings = {"recall_at": [1], "kmeans_seed": 0, "kmeans_iterations": 1, "kmeans_restarts": 1}
    scores = evaluate(
        vectors, test.rows, glyphs.index, glyphs.protocols, {**settings, "threads": 1}, partial=True
    )
    recall = next(row["value"] for row in scores.rows if row["metric"] == "recall@1")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = np.arange(len(vectors))
    found = find_neighbours(vectors, test.labels, rows, rows, 1)
    assert 0.1 < recall < 0.9
    assert np.mean(test.labels[found.nearest[:, 0]] == test.labels) == recall
