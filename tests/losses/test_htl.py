import json
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.reducers import MeanReducer
from scipy.cluster.hierarchy import cophenet
from scipy.spatial.distance import squareform
from torch.nn import functional

from dmlbench.losses import create_loss
from dmlbench.losses.base import pair_masks
from dmlbench.losses.htl import (
    class_distances,
    class_statistics,
    class_tree,
    level_thresholds,
    mean_triplet_hinge,
    nearest_classes,
)


def htl(num_classes, dim=4, **options):
    return create_loss("htl", num_classes, dim, **{"warmup_epochs": 0, **options}).double()


def with_tree(embeddings, labels, **options):
    loss = htl(int(labels.max()) + 1, embeddings.shape[1], **options)
    loss.refresh(lambda: (functional.normalize(embeddings), labels))
    return loss


def random_classes(seed, classes=6, images=4, dim=3, spread=0.4):
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(images)
    means = torch.randn(classes, dim, generator=random, dtype=torch.float64)
    noise = torch.randn(len(labels), dim, generator=random, dtype=torch.float64)
    return functional.normalize(means[labels] + spread * noise), labels


def naive_hinge(distance, margin, positive, negative):
    """Mean hinge over all N^3 triplets."""
    hinge = torch.relu(distance[:, :, None] - (distance - margin)[:, None, :])
    triplets = positive[:, :, None] & negative[:, None, :]
    return (hinge * triplets).sum() / triplets.sum().clamp(min=1)


def brute_distances(embeddings, labels):
    """Mean squared distance between and within classes, from all pairs of images."""
    classes = int(labels.max()) + 1
    squared = torch.cdist(embeddings, embeddings) ** 2
    between = torch.zeros(classes, classes, dtype=torch.float64)
    for p, q in product(range(classes), repeat=2):
        block = squared[labels == p][:, labels == q]
        n = len(block)
        between[p, q] = block.sum() / max(n * n - n, 1) if p == q else block.mean()
    return between


def merge_levels(nodes):
    return (nodes[:, :, None] != nodes[:, None, :]).sum(axis=0)


def test_H1_thresholds():
    thresholds = level_thresholds(0.4, 16)
    np.testing.assert_allclose(thresholds[:5], [0.4, 0.625, 0.85, 1.075, 1.3], rtol=1e-12)
    np.testing.assert_allclose(thresholds[-2:], [3.775, 4.0], rtol=1e-12)
    assert len(thresholds) == 17


def test_H2_levels_and_margins_of_a_chained_pair():
    thresholds = level_thresholds(0.4, 16)
    nodes = class_tree(np.array([0.5, 2.2, 2.0]), thresholds, "single")
    level = merge_levels(nodes)
    assert (level[0, 1], level[1, 2], level[0, 2]) == (1, 8, 8)
    loss = htl(3)
    loss.nodes.copy_(torch.from_numpy(nodes))
    loss.thresholds.copy_(torch.from_numpy(thresholds))
    loss.spread.copy_(torch.tensor([0.3, 0.4, 0.5], dtype=torch.float64))
    loss.built.fill_(True)
    alpha = loss.margins(torch.arange(3)).numpy()
    others = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(alpha[others], [0.425, 2.0, 0.325, 1.9, 1.8, 1.8], rtol=1e-12)


def test_H2_a_distance_at_the_threshold_does_not_merge_yet():
    level = merge_levels(class_tree(np.array([1.0]), np.array([0.5, 1.0, 2.0]), "single"))
    assert level[0, 1] == 2


def test_H2_average_linkage_recomputes_the_distance_of_merged_nodes():
    distance, thresholds = np.array([0.5, 2.2, 2.0]), level_thresholds(0.4, 16)
    level = merge_levels(class_tree(distance, thresholds, "average"))
    assert (level[0, 1], level[1, 2], level[0, 2]) == (1, 8, 8)  # 2.1 < 2.2
    distance[1] = 2.6  # the mean, 2.3, misses d_8 = 2.2; single linkage does not
    assert merge_levels(class_tree(distance, thresholds, "average"))[0, 2] == 9
    assert merge_levels(class_tree(distance, thresholds, "single"))[0, 2] == 8


@pytest.fixture
def six(at):
    return at(0, 20, 40, 60, 180, 200), torch.tensor([0, 0, 1, 1, 2, 2])


def test_H3_class_statistics(six):
    means, spread, d_0 = class_statistics(*six, 3)
    expected = [0.5141092465, 3.9396926208, 3.4858907535]
    np.testing.assert_allclose(class_distances(means), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose([*spread, d_0], [0.1206147584] * 4, rtol=0, atol=1e-9)


def test_H3_tree_margins_and_loss(six):
    loss = with_tree(*six)
    level = merge_levels(loss.nodes.numpy())
    assert (level[0, 1], level[0, 2], level[1, 2]) == (2, 14, 14)
    alpha = loss.margins(torch.arange(3))
    assert alpha[0, 1].item() == pytest.approx(0.5849231552, abs=1e-9)
    assert alpha[:2, 2].tolist() == pytest.approx([3.4944620864] * 2, abs=1e-9)
    assert loss(*six).item() == pytest.approx(0.0767178965, abs=1e-9)
    assert with_tree(*six, squared=False)(*six).item() == pytest.approx(0.6839867220, abs=1e-9)
    assert htl(3, 2)(*six).item() == pytest.approx(0.0083333333, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_H3_statistics_from_means_are_those_of_all_pairs(seed, sizes):
    torch.manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    order = torch.randperm(len(labels))
    x = functional.normalize(torch.randn(len(labels), 5, dtype=torch.float64))
    expected = brute_distances(x, labels).numpy()
    means, spread, d_0 = class_statistics(x[order], labels[order], len(sizes))
    np.testing.assert_allclose(spread, np.diag(expected), atol=1e-12)
    upper = np.triu_indices(len(sizes), 1)
    np.testing.assert_allclose(class_distances(means), expected[upper], atol=1e-12)
    several = np.array(sizes) > 1
    assert d_0 == pytest.approx(spread[several].mean() if several.any() else 0, abs=1e-12)


def test_H3_counts_of_triplets(six):
    """Of 24 triplets (3 x 2 pairs of classes, 2 of images, 2 negatives) those that violate."""
    x, labels = six
    loss, (positive, negative) = with_tree(x, labels), pair_masks(labels)
    triplets = positive[:, :, None] & negative[:, None, :]
    assert triplets.sum() == 24
    squared = torch.cdist(x, x) ** 2
    for distance, margin, active in (
        (squared, loss.margins(labels), 12),
        (squared.sqrt(), loss.margins(labels), 22),
        (squared, torch.tensor(0.2), 2),
    ):
        violation = distance[:, :, None] - (distance - margin)[:, None, :]
        assert (violation[triplets] > 1e-9).sum() == active


def test_many_classes_are_handled_in_blocks():
    means = np.random.default_rng(0).uniform(-0.5, 0.5, size=(2100, 3))
    full = 2 - 2 * means @ means.T
    np.testing.assert_allclose(class_distances(means), full[np.triu_indices(2100, 1)], atol=1e-12)
    anchors, others = np.arange(0, 2100, 2), np.arange(2100)[5:]
    near = nearest_classes(means, anchors, others, 4)
    expected = others[full[anchors][:, others].argsort(axis=1)[:, :4]]
    np.testing.assert_array_equal([near[anchor] for anchor in anchors.tolist()], expected)


def test_H4_equal_classes_have_one_margin():
    """Turning the axes turns the classes into each other: HTL is the plain hinge."""
    axes = torch.eye(3, dtype=torch.float64)
    sideways = 0.4 * axes.roll(1, dims=1)
    x = functional.normalize(torch.stack([axes + sideways, axes - sideways], dim=1).flatten(0, 1))
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    loss = with_tree(x, labels)
    alpha = loss.margins(torch.arange(3))[~torch.eye(3, dtype=torch.bool)]
    torch.testing.assert_close(alpha, alpha[:1].expand(6))
    expected = naive_hinge(torch.cdist(x, x) ** 2, alpha[0], *pair_masks(labels)) / 2
    assert expected > 0.01
    torch.testing.assert_close(loss(x, labels), expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_H5_margins_of_direct_merges_are_calibrated(seed):
    """0 < d_H - d(p, q) <= a level: the mean of d_ap - d_an + alpha is within a level of beta."""
    x, labels = random_classes(seed)
    loss = with_tree(x, labels)
    between = brute_distances(x, labels)
    level = merge_levels(loss.nodes.numpy())
    step = (4 - loss.thresholds[0]).item() / 16
    alpha = loss.margins(torch.arange(len(between)))
    others = between + 9 * torch.eye(len(between))
    for p, q in enumerate(others.argmin(dim=1).tolist()):  # a nearest class is merged directly
        gap = (loss.thresholds[level[p, q]] - between[p, q]).item()
        violation = (between[p, p] - between[p, q] + alpha[p, q]).item()
        assert gap > 0
        assert violation == pytest.approx(loss.beta + gap)
        assert level[p, q] == 0 or gap <= step + 1e-12


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["single", "average"]))
def test_H5_levels_are_those_of_merging_level_by_level(seed, method):
    x, labels = random_classes(seed, classes=7)
    means, _, d_0 = class_statistics(x, labels, 7)
    thresholds = level_thresholds(d_0, 16)
    level = merge_levels(class_tree(class_distances(means), thresholds, method))
    between = brute_distances(x, labels).numpy()
    groups = [{c} for c in range(7)]
    height = {}
    while len(groups) > 1:  # the nearest two of all nodes, one merge at a time
        reduce = np.min if method == "single" else np.mean
        gap, i, j = min(
            (reduce(between[np.ix_(list(a), list(b))]), i, j)
            for i, a in enumerate(groups)
            for j, b in enumerate(groups)
            if i < j
        )
        height |= {(p, q): gap for p in groups[i] for q in groups[j]}
        groups[i] |= groups.pop(j)
    for (p, q), gap in height.items():
        assert level[p, q] == next(n for n, d in enumerate([*thresholds[:-1], 9]) if gap < d)


def test_H6_before_the_tree_it_is_the_triplet_loss(batch):
    peer = TripletMarginLoss(0.2, distance=LpDistance(power=2), reducer=MeanReducer())
    loss = htl(2, 2)
    assert loss(*batch).item() == pytest.approx(0.38301270 / 2, abs=1e-8)
    assert loss(*batch).item() == pytest.approx(peer(*batch).item() / 2, abs=1e-12)


def test_H6_a_tree_of_one_margin_takes_the_same_path_bit_for_bit():
    x, labels = random_classes(0)
    plain = htl(6, 3, initial_margin=0.375)
    flat = htl(6, 3, beta=0.125)
    flat.thresholds.fill_(0.25)
    flat.nodes.copy_(torch.arange(6).expand(16, 6))
    flat.built.fill_(True)
    one, other = (x.clone().requires_grad_() for _ in range(2))
    assert torch.equal(plain(one, labels), flat(other, labels))
    plain(one, labels).backward()
    flat(other, labels).backward()
    assert torch.equal(one.grad, other.grad)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(2, 9),
    short=st.booleans(),
    built=st.booleans(),
    shape=st.sampled_from([(2, 2), (3, 1), (1, 3), (2, 1)]),
)
def test_H7_anchor_neighbour_batches(seed, classes, short, built, shape):
    neighbours, per_class = shape
    anchors = max(1, classes // neighbours)
    if anchors * neighbours > classes:
        return
    random = np.random.default_rng(seed)
    sizes = random.integers(1 if short else per_class, 5, classes)
    labels = random.permutation(np.repeat(np.arange(classes), sizes))
    x = functional.normalize(torch.from_numpy(random.normal(size=(len(labels), 3))))
    loss = htl(classes, 3, neighbours=neighbours, images_per_class=per_class)
    if built:
        loss.refresh(lambda: (x, torch.from_numpy(labels)))
    size = anchors * neighbours * per_class
    rows = loss.batches(labels, 5, size, seed=1, epoch=2)
    assert rows.shape == (5, size)
    assert rows.dtype == np.int64
    between = brute_distances(x, torch.from_numpy(labels)).numpy()
    for batch in rows.reshape(5, anchors, neighbours, per_class):
        drawn = labels[batch]
        assert (drawn == drawn[..., :1]).all()
        assert len(np.unique(drawn)) == anchors * neighbours
        for images in batch.reshape(-1, per_class):
            enough = (labels == labels[images[0]]).sum() >= per_class
            assert len(set(images)) == per_class or not enough
        taken = set(drawn[:, 0, 0])
        for anchor, *partners in drawn[:, :, 0] if built else ():
            free = [c for c in between[anchor].argsort() if c not in taken and c != anchor]
            assert partners == free[: neighbours - 1]
            taken |= set(partners)


def test_batches_follow_seed_and_epoch():
    labels = np.arange(12).repeat(4)
    loss = htl(12, 3)
    first = loss.batches(labels, 3, 16, 0, 0)
    np.testing.assert_array_equal(first, loss.batches(labels, 3, 16, 0, 0))
    assert (first != loss.batches(labels, 3, 16, 0, 1)).any()
    assert (first != loss.batches(labels, 3, 16, 1, 0)).any()


def test_all_classes_are_anchors_alike():
    labels = np.arange(6).repeat(2)
    loss = htl(6, 3, neighbours=2, images_per_class=1)
    loss.refresh(lambda: (random_classes(0, 6, 2)[0], torch.from_numpy(labels)))
    anchors = labels[loss.batches(labels, 3000, 2, 0, 0)[:, 0]]
    np.testing.assert_allclose(np.bincount(anchors) / 3000, 1 / 6, atol=0.03)


@pytest.mark.parametrize(
    ("size", "message"),
    [(24, "24 is not a multiple of neighbours 4 x images_per_class 4"), (64, "16 classes.* are 5")],
)
def test_a_batch_that_cannot_be_is_refused(size, message):
    with pytest.raises(ValueError, match=message):
        htl(5).batches(np.arange(5).repeat(9), 1, size, 0, 0)


@pytest.mark.parametrize("method", ["single", "average"])
def test_H8_numbering_of_classes_does_not_change_merges(method):
    x, labels = random_classes(3, classes=12)
    number = torch.randperm(12)
    one, other = (with_tree(x, y, tree_linkage=method) for y in (labels, number[labels]))
    torch.testing.assert_close(
        one.margins(torch.arange(12)), other.margins(number), rtol=1e-12, atol=1e-12
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 14),
    classes=st.integers(1, 4),
    squared=st.booleans(),
    built=st.booleans(),
)
def test_loss_agrees_with_all_triplets(seed, n, classes, squared, built):
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=random)
    x = torch.randn(n, 3, dtype=torch.float64, generator=random).requires_grad_()
    loss = htl(classes, 3, squared=squared)
    if built:
        loss.refresh(lambda: random_classes(seed, classes))
    power = 2 if squared else 1
    unit = functional.normalize(x)
    distance = torch.linalg.vector_norm(
        unit[:, None] - unit + 1e-300 * torch.eye(n, dtype=torch.float64)[:, :, None], dim=2
    )
    expected = naive_hinge(distance**power, loss.margins(labels), *pair_masks(labels)) / 2
    value = loss(x, labels)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(value, x)[0],
        torch.autograd.grad(expected, x)[0],
        rtol=1e-7,
        atol=1e-10,
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_hinges_at_their_kink_have_no_gradient(seed, n):
    """Whole numbers: many triplets meet the margin exactly."""
    random = torch.Generator().manual_seed(seed)
    distance = torch.randint(4, (n, n), generator=random).double().requires_grad_()
    margin = torch.randint(3, (n, n), generator=random).double()
    masks = pair_masks(torch.randint(3, (n,), generator=random))
    value, expected = (f(distance, margin, *masks) for f in (mean_triplet_hinge, naive_hinge))
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(value, distance), torch.autograd.grad(expected, distance)
    )


def test_epochs_of_warm_up_and_rebuilding():
    x, labels = random_classes(0)
    calls = []

    def embed():
        calls.append(len(seen))
        return x, labels

    loss = htl(6, 3, warmup_epochs=2, rebuild_every=3)
    seen = []
    for _ in range(9):
        loss.refresh(embed)
        seen.append(bool(loss.built))
    assert seen == [False] * 2 + [True] * 7
    assert calls == [2, 5, 8]


def test_statistics_are_of_all_ordered_pairs_of_classes():
    loss = with_tree(*random_classes(5, classes=9))
    alpha = loss.margins(torch.arange(9))[~torch.eye(9, dtype=torch.bool)].numpy()
    median = np.quantile(alpha, 0.5, method="inverted_cdf")
    assert loss.statistics() == pytest.approx(
        {"alpha_min": alpha.min(), "alpha_median": median, "alpha_max": alpha.max()}
    )
    assert set(htl(9).statistics().values()) == {0.2}


@pytest.mark.parametrize("method", ["single", "average"])
def test_the_artefact_is_the_tree_of_the_last_epoch(method):
    loss = htl(9, 3, tree_linkage=method)
    assert loss.artefact() == {}
    loss.refresh(lambda: random_classes(5, classes=9))
    learnt = json.loads(json.dumps(loss.artefact()))
    assert learnt["linkage"] == method
    assert learnt["thresholds"] == loss.thresholds.tolist()
    assert learnt["spread"] == loss.spread.tolist()
    merges = np.array(learnt["merges"])
    assert merges.shape == (8, 4)
    height = squareform(cophenet(merges))
    thresholds = loss.thresholds.numpy()
    np.testing.assert_array_equal(  # the level that unites two classes is the first above
        np.searchsorted(thresholds[:-1], height, side="right")[~np.eye(9, dtype=bool)],
        merge_levels(loss.nodes.numpy())[~np.eye(9, dtype=bool)],
    )


def test_images_that_coincide_give_a_tree():
    """A collapsed network: unit vectors in float32 are a little longer than 1."""
    x = functional.normalize(torch.randn(1, 64)).expand(40, -1) * (1 + 1e-7)
    loss = create_loss("htl", 10, 64, warmup_epochs=0)
    loss.refresh(lambda: (x, torch.arange(40) // 4))
    assert loss.margins(torch.arange(10)).isfinite().all()
    assert np.array(loss.artefact()["merges"])[:, 2].max() < 1e-6


@pytest.mark.parametrize("classes", [1, 2])
def test_one_or_two_classes(classes):
    x, labels = random_classes(1, classes)
    loss = with_tree(x, labels, neighbours=classes)
    assert loss(x, labels).isfinite()
    assert loss.statistics().keys() == {"alpha_min", "alpha_median", "alpha_max"}
    assert len(loss.artefact()["merges"]) == classes - 1
    assert loss.batches(labels.numpy(), 2, 4 * classes, 0, 0).shape == (2, 4 * classes)


def test_single_images_and_absent_classes_leave_the_tree_finite():
    x, labels = random_classes(2, classes=4)
    keep = (labels != 2) & ~((labels == 1) & (torch.arange(len(labels)) > 4))
    loss = htl(4, 3)
    loss.refresh(lambda: (x[keep], labels[keep]))
    assert loss.spread[[1, 2]].tolist() == [0, 0]
    assert loss.thresholds[0].item() == pytest.approx(loss.spread[[0, 3]].mean().item())
    assert loss.margins(torch.arange(4)).isfinite().all()
    rows = create_loss("htl", 4, 3, neighbours=3, images_per_class=2)
    rows.load_state_dict(loss.state_dict())
    drawn = labels[keep].numpy()[rows.batches(labels[keep].numpy(), 3, 6, 0, 0)]
    assert set(drawn.ravel()) == {0, 1, 3}
