"""HTL's margins, its value and gradient, and when it builds a tree."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.reducers import MeanReducer
from torch.nn import functional

from dmlbench.losses.base import pair_masks
from dmlbench.losses.htl import class_tree, level_thresholds, mean_triplet_hinge


def naive_hinge(distance, margin, positive, negative):
    """Mean hinge over all N^3 triplets."""
    hinge = torch.relu(distance[:, :, None] - (distance - margin)[:, None, :])
    triplets = positive[:, :, None] & negative[:, None, :]
    return (hinge * triplets).sum() / triplets.sum().clamp(min=1)


@pytest.fixture
def six(at):
    """Three classes of two images."""
    return at(0, 20, 40, 60, 180, 200), torch.tensor([0, 0, 1, 1, 2, 2])


def test_classes_that_a_chain_joins_have_the_margin_of_its_level(create_htl, uniting_levels):
    thresholds = level_thresholds(0.4, 16)
    nodes = class_tree(np.array([0.5, 2.2, 2.0]), thresholds, "single")
    level = uniting_levels(nodes)
    assert (level[0, 1], level[1, 2], level[0, 2]) == (1, 8, 8)
    loss = create_htl(3)
    loss.nodes.copy_(torch.from_numpy(nodes))
    loss.thresholds.copy_(torch.from_numpy(thresholds))
    loss.spread.copy_(torch.tensor([0.3, 0.4, 0.5], dtype=torch.float64))
    loss.built.fill_(True)
    alpha = loss.margins(torch.arange(3)).numpy()
    others = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(alpha[others], [0.425, 2.0, 0.325, 1.9, 1.8, 1.8], rtol=1e-12)


def test_oracle_values_of_levels_margins_and_loss(six, create_htl, build_htl, uniting_levels):
    loss = build_htl(*six)
    level = uniting_levels(loss.nodes.numpy())
    assert (level[0, 1], level[0, 2], level[1, 2]) == (2, 14, 14)
    alpha = loss.margins(torch.arange(3))
    assert alpha[0, 1].item() == pytest.approx(0.5849231552, abs=1e-9)
    assert alpha[:2, 2].tolist() == pytest.approx([3.4944620864] * 2, abs=1e-9)
    assert loss(*six).item() == pytest.approx(0.0767178965, abs=1e-9)
    assert build_htl(*six, squared=False)(*six).item() == pytest.approx(0.6839867220, abs=1e-9)
    assert create_htl(3, 2)(*six).item() == pytest.approx(0.0083333333, abs=1e-9)


def test_as_many_triplets_violate_their_margin_as_counted_by_hand(six, build_htl):
    """There are 24 triplets: 3 x 2 pairs of classes, 2 of images, 2 negatives."""
    x, labels = six
    loss, (positive, negative) = build_htl(x, labels), pair_masks(labels)
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


def test_classes_in_equal_positions_have_one_margin(build_htl):
    """Turning the axes turns the classes into each other, so HTL is the plain hinge."""
    axes = torch.eye(3, dtype=torch.float64)
    sideways = 0.4 * axes.roll(1, dims=1)
    x = functional.normalize(torch.stack([axes + sideways, axes - sideways], dim=1).flatten(0, 1))
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    loss = build_htl(x, labels)
    alpha = loss.margins(torch.arange(3))[~torch.eye(3, dtype=torch.bool)]
    torch.testing.assert_close(alpha, alpha[:1].expand(6))
    expected = naive_hinge(torch.cdist(x, x) ** 2, alpha[0], *pair_masks(labels)) / 2
    assert expected > 0.01
    torch.testing.assert_close(loss(x, labels), expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_margins_of_classes_that_merge_directly_are_calibrated(
    build_htl, draw_classes, brute_force_distances, uniting_levels, seed
):
    """0 < d_H - d(p, q) <= a level: the mean of d_ap - d_an + alpha is within a level of beta."""
    x, labels = draw_classes(seed)
    loss = build_htl(x, labels)
    between = brute_force_distances(x, labels)
    level = uniting_levels(loss.nodes.numpy())
    step = (4 - loss.thresholds[0]).item() / 16
    alpha = loss.margins(torch.arange(len(between)))
    others = between + 9 * torch.eye(len(between))
    for p, q in enumerate(others.argmin(dim=1).tolist()):  # a nearest class is merged directly
        gap = (loss.thresholds[level[p, q]] - between[p, q]).item()
        violation = (between[p, p] - between[p, q] + alpha[p, q]).item()
        assert gap > 0
        assert violation == pytest.approx(loss.beta + gap)
        assert level[p, q] == 0 or gap <= step + 1e-12


def test_before_the_first_tree_it_is_the_triplet_loss(batch, create_htl):
    peer = TripletMarginLoss(0.2, distance=LpDistance(power=2), reducer=MeanReducer())
    loss = create_htl(2, 2)
    assert loss(*batch).item() == pytest.approx(0.38301270 / 2, abs=1e-8)
    assert loss(*batch).item() == pytest.approx(peer(*batch).item() / 2, abs=1e-12)


def test_a_tree_of_one_margin_equals_that_initial_margin_bit_for_bit(create_htl, draw_classes):
    x, labels = draw_classes(0)
    plain = create_htl(6, 3, initial_margin=0.375)
    flat = create_htl(6, 3, beta=0.125)
    flat.thresholds.fill_(0.25)
    flat.nodes.copy_(torch.arange(6).expand(16, 6))
    flat.built.fill_(True)
    plain_x, flat_x = (x.clone().requires_grad_() for _ in range(2))
    assert torch.equal(plain(plain_x, labels), flat(flat_x, labels))
    plain(plain_x, labels).backward()
    flat(flat_x, labels).backward()
    assert torch.equal(plain_x.grad, flat_x.grad)


@pytest.mark.parametrize("method", ["single", "average"])
def test_the_numbers_of_classes_do_not_change_margins(build_htl, draw_classes, method):
    x, labels = draw_classes(3, classes=12)
    number = torch.randperm(12)
    loss, renumbered = (build_htl(x, y, tree_linkage=method) for y in (labels, number[labels]))
    torch.testing.assert_close(
        loss.margins(torch.arange(12)), renumbered.margins(number), rtol=1e-12, atol=1e-12
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 14),
    classes=st.integers(1, 4),
    squared=st.booleans(),
    built=st.booleans(),
)
def test_value_and_gradient_agree_with_a_sum_over_all_triplets(
    create_htl, draw_classes, seed, n, classes, squared, built
):
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=random)
    x = torch.randn(n, 3, dtype=torch.float64, generator=random).requires_grad_()
    loss = create_htl(classes, 3, squared=squared)
    if built:
        loss.refresh(lambda: draw_classes(seed, classes))
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
    """With whole numbers, many triplets meet the margin exactly."""
    random = torch.Generator().manual_seed(seed)
    distance = torch.randint(4, (n, n), generator=random).double().requires_grad_()
    margin = torch.randint(3, (n, n), generator=random).double()
    masks = pair_masks(torch.randint(3, (n,), generator=random))
    value, expected = (f(distance, margin, *masks) for f in (mean_triplet_hinge, naive_hinge))
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(value, distance), torch.autograd.grad(expected, distance)
    )


def test_the_tree_is_built_after_warm_up_and_then_at_each_interval(create_htl, draw_classes):
    x, labels = draw_classes(0)
    epochs_with_embedding = []

    def embed():
        epochs_with_embedding.append(len(built))
        return x, labels

    loss = create_htl(6, 3, warmup_epochs=2, rebuild_every=3)
    built = []
    for _ in range(9):
        loss.refresh(embed)
        built.append(bool(loss.built))
    assert built == [False] * 2 + [True] * 7
    assert epochs_with_embedding == [2, 5, 8]


def test_statistics_are_over_all_ordered_pairs_of_classes(create_htl, build_htl, draw_classes):
    loss = build_htl(*draw_classes(5, classes=9))
    alpha = loss.margins(torch.arange(9))[~torch.eye(9, dtype=torch.bool)].numpy()
    median = np.quantile(alpha, 0.5, method="inverted_cdf")
    assert loss.statistics() == pytest.approx(
        {"alpha_min": alpha.min(), "alpha_median": median, "alpha_max": alpha.max()}
    )
    assert set(create_htl(9).statistics().values()) == {0.2}
