import numpy as np
import pytest

from dmlbench.losses._grouping import match_centroids, spherical_kmeans


def test_refilling_an_empty_group_does_not_empty_another(monkeypatch):
    """k-means may end with empty groups; here groups 1 and 2 are empty."""
    faiss = pytest.importorskip("faiss")

    class Stuck:
        def __init__(self, *args, **options):
            self.index = self

        def train(self, points):
            pass

        def search(self, points, k):
            return np.float32([[0.9], [0.2], [0.5], [0.1]]), np.int64([[0], [0], [0], [3]])

    monkeypatch.setattr(faiss, "Kmeans", Stuck)
    assert spherical_kmeans(np.zeros((4, 2), np.float32), 4).tolist() == [0, 1, 2, 3]


def test_centroids_are_matched_one_to_one_by_the_sum_of_their_cosines():
    # Both are nearest to old centroid 0; the one that would lose more gets it
    old = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert match_centroids(np.array([[0.8, 0.6], [1.0, 0.0]]), old).tolist() == [1, 0]
