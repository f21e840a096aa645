"""The ranking by torch, on a CPU: a GPU runs the same lines."""

import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from dmlbench.evaluation import torch_ranking
from dmlbench.evaluation.ranking import rank, unit

BY_TORCH = "cpu:0"
"""The CPU for torch. `rank` takes any device but "cpu" as one of torch."""


def assert_the_same_as_numpy(vectors, labels, queries, gallery, levels=()):
    expected = rank(vectors, labels, queries, gallery, levels=levels)
    result = rank(vectors, labels, queries, gallery, levels=levels, device=BY_TORCH)
    if expected.graded:
        np.testing.assert_array_equal(expected.graded.first, result.graded.first)
        for numpy_values, torch_values in zip(expected.graded[1:], result.graded[1:], strict=True):
            np.testing.assert_allclose(numpy_values, torch_values, rtol=1e-12)
    for field in ("ranks", "counts"):
        numpy_values, torch_values = getattr(expected, field), getattr(result, field)
        np.testing.assert_array_equal(numpy_values, torch_values, err_msg=field)
        assert numpy_values.dtype == torch_values.dtype


@pytest.mark.parametrize("compared", [0, 2, 1000], ids=["sorted", "both", "compared"])
@given(data=st.data(), size=st.integers(2, 25), levels=st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_the_ranks_equal_numpy_s_with_ties_lone_queries_and_any_overlap(
    compared, data, size, levels
):
    # Few directions: duplicates, mirrored ones (ties but for rounding), and lone classes.
    angles = np.deg2rad([0, 10, -10, 10.05, 30, 30.2, 77, 180, -179.9])
    picks = data.draw(
        st.lists(st.integers(0, len(angles) - 1), min_size=size, max_size=size).filter(
            lambda picks: len(set(picks)) > 1
        )
    )
    vectors = unit(np.stack([np.cos(angles[picks]), np.sin(angles[picks])], axis=1))
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)))
    rows = st.lists(st.integers(0, size - 1), min_size=1, unique=True).map(sorted).map(np.array)
    tree = [np.array([7, 7, 3, 3])[labels], np.array([1, 1, 1, 2])[labels]]
    with mock.patch.multiple(torch_ranking, COMPARED=compared, BLOCK=40, GRADED=40):
        assert_the_same_as_numpy(vectors, labels, data.draw(rows), data.draw(rows), tree[:levels])


@pytest.mark.parametrize("compared", [0, 1000], ids=["sorted", "compared"])
@pytest.mark.parametrize("spread", [0.02, 0.5, 8.0], ids=["almost collapsed", "good", "random"])
def test_the_ranks_equal_numpy_s_on_many_images_with_duplicates(clusters, spread, compared):
    embeddings, labels = clusters(3000, 60, dim=64, spread=spread)
    if spread < 0.1:
        embeddings = 1 + 0.002 * embeddings  # all similarities within a few rounding errors
    embeddings[::7] = embeddings[700]
    with mock.patch.multiple(torch_ranking, COMPARED=compared, BLOCK=2**18):
        assert_the_same_as_numpy(
            unit(embeddings), labels, np.arange(0, 3000, 9), np.arange(0, 3000, 2)
        )
        assert_the_same_as_numpy(
            unit(embeddings), labels, np.arange(0, 3000, 90), np.arange(3000), [labels // 9]
        )


def test_the_ranks_do_not_depend_on_the_precision_of_float32_products(clusters):
    embeddings, labels = clusters(2000, 20, dim=256, spread=3.0)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert_the_same_as_numpy(unit(embeddings), labels, np.arange(2000), np.arange(2000))
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_device_gives_all_metrics_without_faiss_and_its_peers():
    code = """
import sys
from importlib.abc import MetaPathFinder
import numpy as np

class Bare(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {"faiss", "sklearn", "scipy", "pandas", "pyarrow", "pydantic"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Bare())
from dmlbench.evaluation.evaluate import evaluate
ids = np.arange(40)
result = evaluate(
    np.eye(5)[ids % 5], ids, {"id": ids, "label": ids % 5, "level_1": ids % 2},
    {"protocol": ["p"] * 40, "id": ids, "role": ["both"] * 40, "repetition": ids * 0},
    {"recall_at": [1], "kmeans_seed": 0, "kmeans_iterations": 5, "kmeans_restarts": 1,
     "threads": 1},
    levels=["level_1"], device="cpu:0",
)
scores = {row["metric"]: row["value"] for row in result.rows}
assert scores["recall@1"] == scores["map"] == scores["nmi"] == 1, scores
assert scores["recall@1 level_1"] < 1 and 0 < scores["h_ap"] < 1, scores
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_ranking_does_not_wait_for_the_device(clusters):
    seen = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    embeddings, labels = clusters(400, 10)
    rows, vectors = np.arange(400), unit(embeddings)
    for compared in (0, 1000):
        with mock.patch.object(torch_ranking, "COMPARED", compared), Watch():
            rank(vectors, labels, rows, rows, device=BY_TORCH)
            rank(vectors, labels, rows, rows, levels=[labels // 3], device=BY_TORCH)
    assert {"mm", "gather", "sort", "scatter_"} <= seen
    assert not seen & {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "bincount"}
