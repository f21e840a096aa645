"""Maps: near images are near, and the same embeddings give the same map."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dmlbench.evaluation.placing import place
from dmlbench.gallery.projection import GRID, on_grid, pca, tsne


@pytest.fixture(scope="module")
def clusters():
    """120 unit vectors in 4 clusters, and their clusters."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 30)
    vectors = 5 * np.eye(4, 10)[labels] + generator.normal(size=(120, 10))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


def test_pca_has_the_singular_values_of_the_centred_vectors(clusters):
    vectors, _ = clusters
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    projected = pca(vectors)
    np.testing.assert_allclose(np.abs(projected), np.abs(u[:, :2] * s[:2]), atol=1e-9)


def test_pca_of_one_dimension_is_a_line():
    assert pca(np.array([[1.0], [-1.0]])).tolist() == [[1.0, 0.0], [-1.0, 0.0]]


def test_tsne_keeps_clusters_together_whatever_the_threads(clusters):
    vectors, labels = clusters
    points = tsne(place(vectors))
    distances = np.linalg.norm(points[:, None] - points, axis=2) + 1e9 * np.eye(len(points))
    assert (labels[distances.argmin(axis=1)] == labels).mean() > 0.97
    np.testing.assert_array_equal(tsne(place(vectors), threads=2), points)


def test_too_few_images_for_tsne_are_shown_by_pca():
    vectors = np.eye(5, dtype=np.float32)
    np.testing.assert_array_equal(tsne(place(vectors)), pca(vectors))


@settings(deadline=None)
@given(arrays(float, st.tuples(st.integers(1, 20), st.just(2)), elements=st.floats(-1e6, 1e6)))
def test_the_grid_keeps_the_shape(points):
    grid = on_grid(points).astype(float)
    span = np.ptp(points, axis=0).max()
    if span > 0:
        wanted = GRID * (points - points[0]) / span
        np.testing.assert_allclose(grid - grid[0], wanted, atol=1.01)
        assert np.ptp(grid, axis=0).max() == GRID
    else:
        assert len({*map(tuple, grid)}) == 1
