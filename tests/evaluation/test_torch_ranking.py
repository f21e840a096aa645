"""The ranking by torch, on torch's CPU: what a GPU runs, line for line."""

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlbench.evaluation import torch_ranking
from dmlbench.evaluation.ranking import rank, unit

BY_TORCH = "cpu:0"  # to torch the CPU; to `rank` a device, as only "cpu" is numpy's


def assert_the_same_as_numpy(vectors, labels, queries, gallery, nearest=True):
    expected = rank(vectors, labels, queries, gallery, nearest=nearest)
    found = rank(vectors, labels, queries, gallery, nearest=nearest, device=BY_TORCH)
    for field in ("ranks", "counts", "nearest"):
        one, other = getattr(expected, field), getattr(found, field)
        np.testing.assert_array_equal(one, other, err_msg=field)
        assert one.dtype == other.dtype


@pytest.mark.parametrize("compared", [0, 2, 1000], ids=["sorted", "both", "compared"])
@given(data=st.data(), size=st.integers(2, 25), nearest=st.booleans())
@settings(max_examples=60, deadline=None)
def test_equals_numpy_with_duplicates_lone_queries_and_any_overlap_of_query_and_gallery(
    compared, data, size, nearest
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
    with mock.patch.multiple(torch_ranking, COMPARED=compared, BLOCK=40):
        assert_the_same_as_numpy(vectors, labels, data.draw(rows), data.draw(rows), nearest)


@pytest.mark.parametrize("compared", [0, 1000], ids=["sorted", "compared"])
@pytest.mark.parametrize("spread", [0.02, 0.5, 8.0], ids=["almost collapsed", "good", "random"])
def test_equals_numpy_on_many_images_some_of_them_equal(clusters, spread, compared):
    embeddings, labels = clusters(3000, 60, dim=64, spread=spread)
    if spread < 0.1:
        embeddings = 1 + 0.002 * embeddings  # all similarities within a few rounding errors
    embeddings[::7] = embeddings[700]
    with mock.patch.multiple(torch_ranking, COMPARED=compared, BLOCK=2**18):
        assert_the_same_as_numpy(
            unit(embeddings), labels, np.arange(0, 3000, 9), np.arange(0, 3000, 2)
        )


def test_a_process_that_multiplies_in_low_precision_ranks_the_same(clusters):
    embeddings, labels = clusters(2000, 20, dim=256, spread=3.0)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert_the_same_as_numpy(unit(embeddings), labels, np.arange(2000), np.arange(2000))
    finally:
        torch.set_float32_matmul_precision(before)
