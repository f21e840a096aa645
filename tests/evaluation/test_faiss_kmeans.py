"""Where faiss searches for the nearest centroids, the answers are those of a sort in float64."""

import sys
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlbench.evaluation import faiss_kmeans
from dmlbench.evaluation.faiss_kmeans import CANDIDATES, FaissPoints, gpu_points
from dmlbench.evaluation.kmeans import kmeans
from dmlbench.evaluation.torch_kmeans import TorchPoints
from dmlbench.utils.errors import WrongEnvironment


def placed(vectors, seed, k):
    """Points whose `k` centroids are on vectors, some of them on the same one."""
    points = FaissPoints(vectors.astype(np.float32), k, "cpu")
    points.place(np.arange(k), np.random.default_rng(seed).integers(len(vectors), size=k))
    return points


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 2**32),
    st.integers(1, 60),
    st.integers(2, 40),
    st.sampled_from([1, 2, 9]),
    st.integers(1, 3),
    st.booleans(),
)
def test_nearest_centroids_are_those_of_a_sort_with_ties_in_the_order_of_columns(
    seed, n, k, dim, largest, reverse
):
    # whole numbers: many vectors and centroids are equal, and every sum is exact
    random = np.random.default_rng(seed)
    vectors = random.integers(-largest, largest, size=(n, dim), endpoint=True)
    points = placed(vectors, seed, k)
    columns = random.permutation(k)[: random.integers(2, k, endpoint=True)]
    rows = random.permutation(n)
    centroids = points.centroids.numpy()[columns]
    squares = np.square(vectors[rows, None] - centroids[None]).sum(2)
    order = np.argsort(squares, axis=1, kind="stable")
    search = points._search

    def search_in_another_order(*arguments):  # faiss promises none for equal ones
        distances, candidates = search(*arguments)
        return distances, candidates.flip(1) if reverse else candidates

    points._search = search_in_another_order
    nearest, first, second = points.nearest(rows, columns)
    np.testing.assert_array_equal(nearest, columns[order[:, 0]])
    np.testing.assert_array_equal([first, second], np.sort(squares, axis=1)[:, :2].T)


def test_centroids_that_differ_by_less_than_float32_can_tell_are_told_apart():
    vectors = np.zeros((3, 2), dtype=np.float32)
    vectors[:, 0] = 1
    points = FaissPoints(vectors, 30, "cpu")
    points.centroids[:] = points.points[0]
    away = 1.0 + (np.arange(30) + 15) % 30  # column 15 is the nearest
    points.centroids[:, 1] = 1e-6 * points.centroids.new_tensor(away)
    # by products in float32 all are equally far, so any of them may be candidates
    points._search = lambda *_: (torch.zeros(3, CANDIDATES), torch.arange(CANDIDATES).repeat(3, 1))
    nearest, first, second = points.nearest(np.arange(3), np.arange(30))
    assert nearest.tolist() == [15] * 3
    np.testing.assert_allclose(first, 1e-12, atol=1e-14)
    np.testing.assert_allclose(second, 4e-12, atol=1e-14)


def test_torch_searches_only_for_the_vectors_of_which_faiss_is_not_sure():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(400, 16)).astype(np.float32)
    points = placed(vectors, 0, 50)
    points.centroids[:20] = points.points[7]  # more equal ones than candidates
    rows_of_torch = []
    nearest_by_torch = TorchPoints.nearest

    def nearest(self, rows, columns):
        rows_of_torch.extend(rows)
        return nearest_by_torch(self, rows, columns)

    with mock.patch.object(TorchPoints, "nearest", nearest):
        points.nearest(np.arange(400), np.arange(50))
    assert 7 in rows_of_torch
    assert len(rows_of_torch) < 100
    assert CANDIDATES < 20


@pytest.fixture
def faiss(monkeypatch):
    """A faiss for CUDA that sees a GPU."""
    module = SimpleNamespace(StandardGpuResources=object, get_num_gpus=lambda: 1)
    monkeypatch.setitem(sys.modules, "faiss", module)
    return module


def test_torch_searches_unless_the_variable_asks_for_faiss(faiss):
    vectors = np.eye(3, dtype=np.float32)
    assert type(gpu_points(vectors, 2, "cpu", {})) is TorchPoints
    assert type(gpu_points(vectors, 2, "cpu", {"DMLBENCH_KMEANS": ""})) is TorchPoints
    assert type(gpu_points(vectors, 2, "cpu", {"DMLBENCH_KMEANS": "torch"})) is TorchPoints
    assert type(gpu_points(vectors, 2, "cpu", {"DMLBENCH_KMEANS": "faiss"})) is FaissPoints


@pytest.mark.parametrize("case", ["no faiss", "a build without CUDA", "no GPU"])
def test_torch_searches_if_faiss_can_use_no_gpu(faiss, case, monkeypatch, capsys):
    if case == "no faiss":
        monkeypatch.setitem(sys.modules, "faiss", None)
    elif case == "no GPU":
        faiss.get_num_gpus = lambda: 0
    else:
        del faiss.StandardGpuResources
    points = gpu_points(np.eye(3, dtype=np.float32), 2, "cpu", {"DMLBENCH_KMEANS": "faiss"})
    assert type(points) is TorchPoints
    assert "faiss sees no GPU, so torch searches" in capsys.readouterr().out


def test_another_value_of_the_variable_is_refused():
    with pytest.raises(WrongEnvironment, match=r"DMLBENCH_KMEANS=cuda: it is torch, .* or faiss"):
        gpu_points(np.eye(3, dtype=np.float32), 2, "cpu", {"DMLBENCH_KMEANS": "cuda"})


def test_k_means_by_faiss_gives_the_clusters_of_torch(monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(2000, 24)).astype(np.float32)
    by_torch = kmeans(vectors, 150, 0, 10, 1, device="cpu:0")
    monkeypatch.setenv("DMLBENCH_KMEANS", "faiss")
    monkeypatch.setattr(faiss_kmeans, "faiss_sees_gpu", lambda: True)
    with mock.patch.object(FaissPoints, "_search", autospec=True, side_effect=FaissPoints._search):
        by_faiss = kmeans(vectors, 150, 0, 10, 1, device="cpu:0")
        assert FaissPoints._search.call_count > 10
    np.testing.assert_array_equal(by_faiss, by_torch)
