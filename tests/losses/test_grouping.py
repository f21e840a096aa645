import numpy as np
import pytest

from dmlbench.losses._grouping import matched, spherical_kmeans


def test_refilling_an_empty_group_leaves_no_other_empty(monkeypatch):
    """k-means may end with empty groups, however it tries: here groups 1 and 2 are."""
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


def test_groups_are_matched_one_to_one_by_the_sum_of_their_cosines():
    # both are nearest to old 0: who would lose most by going elsewhere has it
    old = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert matched(np.array([[0.8, 0.6], [1.0, 0.0]]), old).tolist() == [1, 0]
