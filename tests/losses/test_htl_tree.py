"""HTL's tree of classes: statistics of classes, thresholds, and the levels that unite classes."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import cophenet
from scipy.spatial.distance import squareform
from torch.nn import functional

from dmlbench.losses import create_loss
from dmlbench.losses.htl import (
    class_distances,
    class_statistics,
    class_tree,
    level_thresholds,
    nearest_classes,
)


def test_thresholds_rise_evenly_from_the_mean_spread_to_four():
    thresholds = level_thresholds(0.4, 16)
    np.testing.assert_allclose(thresholds[:5], [0.4, 0.625, 0.85, 1.075, 1.3], rtol=1e-12)
    np.testing.assert_allclose(thresholds[-2:], [3.775, 4.0], rtol=1e-12)
    assert len(thresholds) == 17


def test_a_distance_at_the_threshold_does_not_merge_yet(uniting_levels):
    level = uniting_levels(class_tree(np.array([1.0]), np.array([0.5, 1.0, 2.0]), "single"))
    assert level[0, 1] == 2


def test_average_linkage_averages_the_distances_of_merged_nodes(uniting_levels):
    distance, thresholds = np.array([0.5, 2.2, 2.0]), level_thresholds(0.4, 16)
    level = uniting_levels(class_tree(distance, thresholds, "average"))
    assert (level[0, 1], level[1, 2], level[0, 2]) == (1, 8, 8)  # 2.1 < 2.2
    distance[1] = 2.6  # the mean, 2.3, misses d_8 = 2.2; single linkage does not
    assert uniting_levels(class_tree(distance, thresholds, "average"))[0, 2] == 9
    assert uniting_levels(class_tree(distance, thresholds, "single"))[0, 2] == 8


def test_oracle_values_of_class_statistics(at):
    x, labels = at(0, 20, 40, 60, 180, 200), torch.tensor([0, 0, 1, 1, 2, 2])
    means, spread, d_0 = class_statistics(x, labels, 3)
    expected = [0.5141092465, 3.9396926208, 3.4858907535]
    np.testing.assert_allclose(class_distances(means), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose([*spread, d_0], [0.1206147584] * 4, rtol=0, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_statistics_from_means_equal_those_from_all_pairs(brute_force_distances, seed, sizes):
    torch.manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    order = torch.randperm(len(labels))
    x = functional.normalize(torch.randn(len(labels), 5, dtype=torch.float64))
    expected = brute_force_distances(x, labels).numpy()
    means, spread, d_0 = class_statistics(x[order], labels[order], len(sizes))
    np.testing.assert_allclose(spread, np.diag(expected), atol=1e-12)
    upper = np.triu_indices(len(sizes), 1)
    np.testing.assert_allclose(class_distances(means), expected[upper], atol=1e-12)
    several = np.array(sizes) > 1
    assert d_0 == pytest.approx(spread[several].mean() if several.any() else 0, abs=1e-12)


def test_many_classes_are_handled_in_blocks():
    means = np.random.default_rng(0).uniform(-0.5, 0.5, size=(2100, 3))
    full = 2 - 2 * means @ means.T
    np.testing.assert_allclose(class_distances(means), full[np.triu_indices(2100, 1)], atol=1e-12)
    anchors, others = np.arange(0, 2100, 2), np.arange(2100)[5:]
    near = nearest_classes(means, anchors, others, 4)
    expected = others[full[anchors][:, others].argsort(axis=1)[:, :4]]
    np.testing.assert_array_equal([near[anchor] for anchor in anchors.tolist()], expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["single", "average"]))
def test_levels_are_those_of_merging_one_pair_of_nodes_at_a_time(
    draw_classes, brute_force_distances, uniting_levels, seed, method
):
    x, labels = draw_classes(seed, classes=7)
    means, _, d_0 = class_statistics(x, labels, 7)
    thresholds = level_thresholds(d_0, 16)
    level = uniting_levels(class_tree(class_distances(means), thresholds, method))
    between = brute_force_distances(x, labels).numpy()
    nodes = [{c} for c in range(7)]
    height = {}
    while len(nodes) > 1:  # merge the nearest two nodes
        reduce = np.min if method == "single" else np.mean
        gap, i, j = min(
            (reduce(between[np.ix_(list(a), list(b))]), i, j)
            for i, a in enumerate(nodes)
            for j, b in enumerate(nodes)
            if i < j
        )
        height |= {(p, q): gap for p in nodes[i] for q in nodes[j]}
        nodes[i] |= nodes.pop(j)
    for (p, q), gap in height.items():
        assert level[p, q] == next(n for n, d in enumerate([*thresholds[:-1], 9]) if gap < d)


@pytest.mark.parametrize("method", ["single", "average"])
def test_the_artefact_is_the_tree_of_the_last_epoch(
    create_htl, draw_classes, uniting_levels, method
):
    loss = create_htl(9, 3, tree_linkage=method)
    assert loss.artefact() == {}
    loss.refresh(lambda: draw_classes(5, classes=9))
    artefact = json.loads(json.dumps(loss.artefact()))
    assert artefact["linkage"] == method
    assert artefact["thresholds"] == loss.thresholds.tolist()
    assert artefact["spread"] == loss.spread.tolist()
    merges = np.array(artefact["merges"])
    assert merges.shape == (8, 4)
    height = squareform(cophenet(merges))
    thresholds = loss.thresholds.numpy()
    np.testing.assert_array_equal(  # the level that unites two classes is the first above
        np.searchsorted(thresholds[:-1], height, side="right")[~np.eye(9, dtype=bool)],
        uniting_levels(loss.nodes.numpy())[~np.eye(9, dtype=bool)],
    )


def test_images_that_coincide_give_a_tree():
    """In a collapsed network, unit vectors in float32 are a little longer than 1."""
    x = functional.normalize(torch.randn(1, 64)).expand(40, -1) * (1 + 1e-7)
    loss = create_loss("htl", 10, 64, warmup_epochs=0)
    loss.refresh(lambda: (x, torch.arange(40) // 4))
    assert loss.margins(torch.arange(10)).isfinite().all()
    assert np.array(loss.artefact()["merges"])[:, 2].max() < 1e-6


@pytest.mark.parametrize("classes", [1, 2])
def test_one_or_two_classes_give_a_tree(build_htl, draw_classes, classes):
    x, labels = draw_classes(1, classes)
    loss = build_htl(x, labels, neighbours=classes)
    assert loss(x, labels).isfinite()
    assert loss.statistics().keys() == {"alpha_min", "alpha_median", "alpha_max"}
    assert len(loss.artefact()["merges"]) == classes - 1
    assert loss.batches(labels.numpy(), 2, 4 * classes, 0, 0).shape == (2, 4 * classes)


def test_single_images_and_absent_classes_leave_the_tree_finite(create_htl, draw_classes):
    x, labels = draw_classes(2, classes=4)
    keep = (labels != 2) & ~((labels == 1) & (torch.arange(len(labels)) > 4))
    loss = create_htl(4, 3)
    loss.refresh(lambda: (x[keep], labels[keep]))
    assert loss.spread[[1, 2]].tolist() == [0, 0]
    assert loss.thresholds[0].item() == pytest.approx(loss.spread[[0, 3]].mean().item())
    assert loss.margins(torch.arange(4)).isfinite().all()
    rows = create_loss("htl", 4, 3, neighbours=3, images_per_class=2)
    rows.load_state_dict(loss.state_dict())
    drawn = labels[keep].numpy()[rows.batches(labels[keep].numpy(), 3, 6, 0, 0)]
    assert set(drawn.ravel()) == {0, 1, 3}
