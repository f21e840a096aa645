import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import CosFaceLoss, NormalizedSoftmaxLoss, SoftTripleLoss
from pytorch_metric_learning.regularizers import SparseCentersRegularizer
from torch.nn import functional

from dmlbench.losses import create_loss
from dmlbench.losses.softtriple import MERGED, distinct_centers, mean_center_distance


@pytest.fixture
def loss_at(at):
    """SoftTriple with given centres: a tuple of angles per class."""

    def build(*classes, **options):
        centers = torch.stack([at(*degrees) for degrees in classes])
        loss = create_loss(
            "softtriple", len(classes), 2, centers_per_class=centers.shape[1], **options
        )
        loss.centers = torch.nn.Parameter(centers)
        return loss

    return build


def evaluate(loss, embedding, label):
    return loss(embedding, torch.tensor([label])).item()


def reference(x, labels, centers, la, gamma, tau, margin):
    """The paper's formulas with the authors' 1e-5, by loops."""
    x, centers = functional.normalize(x), functional.normalize(centers, dim=2)
    classes, per_class, _ = centers.shape
    total = 0.0
    for embedding, label in zip(x, labels.tolist(), strict=True):
        relaxed = []
        for c in range(classes):
            cosine = [float(embedding @ w) for w in centers[c]]
            weight = [math.exp(s / gamma) for s in cosine]
            relaxed.append(sum(w * s for w, s in zip(weight, cosine, strict=True)) / sum(weight))
        relaxed[label] -= margin
        exponentials = [math.exp(la * s) for s in relaxed]
        total -= math.log(exponentials[label] / sum(exponentials))
    regulariser = 0.0
    for c in range(classes):
        for s in range(per_class):
            for t in range(s):
                regulariser += math.sqrt(2 + 1e-5 - 2 * float(centers[c, s] @ centers[c, t]))
    total /= len(x)
    return total + (tau * regulariser / (classes * per_class * (per_class - 1)) if tau else 0)


def test_oracle_value_of_an_embedding_on_its_centre(loss_at, at):
    centres = ((0, 90), (180, 270))
    assert evaluate(loss_at(*centres), at(0), 0) == pytest.approx(0.1414217123, abs=1e-10)
    assert evaluate(loss_at(*centres, tau=0.0), at(0), 0) == pytest.approx(2.51750e-9, abs=1e-13)
    regulariser = mean_center_distance(loss_at(*centres).centers)
    assert regulariser.item() == pytest.approx(0.7071085490, abs=1e-10)


def test_oracle_values_of_the_right_and_the_wrong_class(loss_at, at):
    centres = ((0, 90), (180, 270))
    assert evaluate(loss_at(*centres, tau=0.0), at(30), 0) == pytest.approx(1.666e-12, abs=1e-15)
    bare = loss_at(*centres, tau=0.0, margin=0.0)
    # For two classes, log(e^loss - 1) is the difference of the logits, la (S'_1 - S'_0)
    difference = evaluate(bare, at(30), 1) / 20
    assert difference == pytest.approx(0.8468452123 + 0.01 + 0.5091801916, abs=1e-9)
    assert evaluate(loss_at(*centres, tau=0.0), at(30), 1) == pytest.approx(27.5205080757, abs=1e-9)
    assert evaluate(loss_at(*centres), at(30), 1) == pytest.approx(27.6619297855, abs=1e-9)


def test_oracle_value_between_two_classes(loss_at, at):
    loss = loss_at((0, 90), (180, 270))
    assert evaluate(loss, at(135), 0) == pytest.approx(0.9395605792, abs=1e-9)
    loss = loss_at((0, 90), (180, 270), tau=0.0)
    assert evaluate(loss, at(135), 0) == pytest.approx(math.log1p(math.exp(0.2)), abs=1e-12)


def test_merged_centres_count_as_one(loss_at, at):
    merged = loss_at((0, 0), (90, 90), tau=0.0)
    single = loss_at((0,), (90,))
    assert evaluate(merged, at(30), 0) == pytest.approx(0.0008080294, abs=1e-10)
    assert evaluate(single, at(30), 0) == pytest.approx(evaluate(merged, at(30), 0), abs=1e-14)
    floor = mean_center_distance(merged.centers).item()
    assert floor == pytest.approx(0.0015811388, abs=1e-10)


@pytest.mark.parametrize(
    ("gamma", "relaxed"),
    [(1e-4, 0.9659258263), (1e4, 0.7697549798), (1e9, 0.7697511313)],
    ids=["max", "almost_mean", "mean"],
)
def test_gamma_goes_from_the_maximum_to_the_mean(loss_at, at, gamma, relaxed):
    # The other class is at 115 degrees, at a right angle to x: its similarity is 0
    loss = loss_at((10, 80), (115, 115), la=1.0, tau=0.0, margin=0.0, gamma=gamma)
    value = evaluate(loss, at(25), 0)
    assert -math.log(math.expm1(value)) == pytest.approx(relaxed, abs=1e-9)


@pytest.mark.parametrize("margin", [0.0, 0.35])
def test_with_one_centre_it_is_cosface_or_without_margin_normalised_softmax(margin):
    x, labels = torch.randn(9, 6, dtype=torch.float64), torch.arange(9) % 4
    loss = create_loss("softtriple", 4, 6, centers_per_class=1, la=15.0, margin=margin).double()
    weights = torch.nn.Parameter(loss.centers.detach()[:, 0].T)
    peers = [CosFaceLoss(4, 6, margin=margin, scale=15)]
    if margin == 0:
        peers.append(NormalizedSoftmaxLoss(4, 6, temperature=1 / 15))
    for peer in peers:
        peer.W = weights
        torch.testing.assert_close(loss(x, labels), peer(x, labels), rtol=1e-12, atol=1e-12)


def test_agrees_with_pytorch_metric_learning_up_to_its_epsilon():
    x, labels = torch.randn(9, 8, dtype=torch.float64), torch.arange(9) % 5
    loss = create_loss("softtriple", 5, 8, centers_per_class=3).double()
    peer = SoftTripleLoss(
        5,
        8,
        centers_per_class=3,
        la=20,
        gamma=0.1,
        margin=0.01,
        weight_regularizer=SparseCentersRegularizer(5, 3),
        weight_reg_weight=0.2,
    )
    peer.fc = torch.nn.Parameter(loss.centers.detach().flatten(0, 1).T)
    assert loss(x, labels).item() == pytest.approx(peer(x, labels).item(), abs=2e-6)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 4), st.integers(2, 4), st.integers(0, 2**31), st.booleans()
)
def test_agrees_with_a_loop(n, classes, per_class, seed, regularised):
    torch.manual_seed(seed)
    tau = 0.3 if regularised else 0.0
    options = {"la": 7.0, "gamma": 0.2, "tau": tau, "margin": 0.1}
    loss = create_loss("softtriple", classes, 5, centers_per_class=per_class, **options).double()
    x, labels = torch.randn(n, 5, dtype=torch.float64), torch.randint(classes, (n,))
    expected = reference(x, labels, loss.centers.detach(), **options)
    assert loss(x, labels).item() == pytest.approx(expected, abs=1e-11)


def test_order_and_length_of_centres_do_not_matter():
    loss = create_loss("softtriple", 4, 6, centers_per_class=5).double()
    x, labels = torch.randn(9, 6, dtype=torch.float64), torch.arange(9) % 4
    expected = loss(x, labels)
    with torch.no_grad():
        order = torch.stack([torch.randperm(5) for _ in range(4)])
        loss.centers.copy_(loss.centers.gather(1, order[:, :, None].expand(-1, -1, 6)))
        loss.centers.mul_(torch.rand(4, 5, 1) + 0.5)
    torch.testing.assert_close(loss(x, labels), expected, rtol=1e-12, atol=1e-12)


def test_the_gradient_is_finite_at_merged_centres():
    """d reg / d cos is -1 / sqrt(1e-5) for a pair, before the division by C K (K - 1)."""
    unit = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    mean_center_distance(unit).backward()
    slope = -(1e-5**-0.5) / 2
    assert slope * 2 == pytest.approx(-316.2, abs=0.05)
    torch.testing.assert_close(unit.grad[0, 0], torch.tensor([slope, 0], dtype=torch.float64))


def components(centers):
    """Number of distinct centres of a class, by walks from centre to centre."""
    left, count = list(range(len(centers))), 0
    while left:
        count, walk = count + 1, [left.pop()]
        while walk:
            here = centers[walk.pop()]
            near = [k for k in left if math.dist(centers[k], here) < MERGED]
            left = [k for k in left if k not in near]
            walk += near
    return count


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 12), st.floats(0.01, 1.0), st.integers(0, 2**31))
def test_centres_that_a_chain_of_near_ones_joins_count_once(classes, count, spread, seed):
    torch.manual_seed(seed)
    start = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    centers = start + spread * torch.randn(classes, count, 3, dtype=torch.float64)
    expected = [components(functional.normalize(own, dim=1).tolist()) for own in centers]
    assert distinct_centers(centers * 7).tolist() == expected


def test_a_chain_of_all_centres_counts_once(at):
    chain = at(*(5 * k for k in range(10)))  # 5 degrees are 0.087
    order = torch.randperm(10)
    assert distinct_centers(
        torch.stack([chain[order], at(*(6 * k for k in range(10)))])
    ).tolist() == [1, 10]


def test_the_regulariser_merges_centres_and_the_statistics_show_it():
    loss = create_loss("softtriple", 3, 8, centers_per_class=4, tau=50.0)
    assert loss.statistics() == {"distinct_centers": 4}
    optimizer = torch.optim.Adam(loss.param_groups(1e-4))
    x, labels = torch.randn(30, 8), torch.arange(30) % 3
    for step in range(600):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / 600)
        optimizer.zero_grad()
        loss(x, labels).backward()
        optimizer.step()
    assert loss.statistics() == {"distinct_centers": 1}
    assert loss.artefact() == {"distinct_centers": [1, 1, 1], "merged": 0.1}


def test_centres_start_as_in_the_authors_code_and_learn_100_times_faster():
    loss = create_loss("softtriple", 40, 50, centers_per_class=10)
    assert loss.centers.abs().max().item() == pytest.approx(400**-0.5, rel=1e-3)
    (group,) = loss.param_groups(1e-4)
    assert group["lr"] == pytest.approx(1e-2)
