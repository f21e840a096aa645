from math import acosh, asinh, exp, log, tanh

import pytest
import torch
from torch.nn import functional

from dmlbench.losses import create_loss


def hyp(dim=2, **options):
    return create_loss("hyp", 5, dim, **options)


def test_oracle_value_by_hand():
    """Two classes on a line through the origin, where distances add up: 2 |v| from the origin."""
    x = torch.tensor([[0.3, 0.0], [1.0, 0.0], [-0.2, 0.0], [-9.0, 0.0]], dtype=torch.float64)
    at = [0.6, 2.0, -0.4, -4.6]  # the last one is clipped at 2.3
    pairs = [(0, 1), (1, 0), (2, 3), (3, 2)]
    expected = 0.0
    for a, p in pairs:
        others = [b for b in range(4) if b != a]
        terms = {b: exp(-abs(at[a] - at[b]) / 0.2) for b in others if b == p or b // 2 != a // 2}
        expected -= log(terms[p] / sum(terms.values())) / 4
    value = hyp()(x, torch.tensor([0, 0, 1, 1]))
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_distances_are_those_of_the_poincare_ball():
    """The formula by Euclidean distances of points of the ball, which no code here uses."""
    x, y = torch.tensor([[0.6, 0.8], [-0.5, 1.2]], dtype=torch.float64)
    c = 0.3
    u, v = (tanh(c**0.5 * p.norm()) * p / (c**0.5 * p.norm()) for p in (x, y))
    ratio = 2 * c * (u - v).square().sum() / ((1 - c * u @ u) * (1 - c * v @ v))
    loss = hyp(curvature=c)
    found = loss._distances(torch.stack([x, y]))
    assert found[0, 1].item() == pytest.approx(acosh(1 + ratio) / c**0.5, rel=1e-12)
    half = ((u - v).square().sum() * c / ((1 - c * u @ u) * (1 - c * v @ v))) ** 0.5
    assert found[1, 0].item() == pytest.approx(2 * asinh(half) / c**0.5, rel=1e-12)


@pytest.mark.parametrize("views", [2, 3, 4])
def test_batches_of_p_by_k_have_the_cross_entropies_of_each_two_views(views):
    """As the authors' code: slices of the batch, one for each view, and no masks."""
    classes = 5
    x = torch.randn(classes * views, 4, dtype=torch.float64)
    labels = torch.arange(classes).repeat_interleave(views)
    loss = hyp(dim=4, temperature=0.3)
    logits = -loss._distances(x) / 0.3
    of_view = [torch.arange(view, classes * views, views) for view in range(views)]
    entropies = []
    for i in range(views):
        for j in range(views):
            if i != j:
                within = logits[of_view[i]][:, of_view[i]] - torch.eye(classes) * 1e9
                rows = torch.cat([logits[of_view[i]][:, of_view[j]], within], dim=1)
                entropies.append(functional.cross_entropy(rows, torch.arange(classes)))
    torch.testing.assert_close(loss(x, labels), torch.stack(entropies).mean())


def test_with_two_images_of_a_class_all_images_of_other_classes_are_negatives():
    x, labels = torch.randn(8, 3, dtype=torch.float64), torch.arange(4).repeat(2)
    loss = hyp(dim=3)
    logits = (-loss._distances(x) / 0.2).fill_diagonal_(-torch.inf)
    expected = functional.cross_entropy(logits, (torch.arange(8) + 4) % 8)
    torch.testing.assert_close(loss(x, labels), expected)
    shuffle = torch.randperm(8)
    torch.testing.assert_close(loss(x[shuffle], labels[shuffle]), expected)


def test_an_embedding_beyond_the_radius_counts_by_its_direction_alone():
    x = torch.randn(6, 3, dtype=torch.float64)
    x = functional.normalize(x) * torch.tensor([3, 5, 9, 2.4, 2.5, 7]).double()[:, None]
    labels = torch.arange(3).repeat(2)
    torch.testing.assert_close(hyp(dim=3)(x, labels), hyp(dim=3)(2 * x, labels))
    assert hyp(dim=3)(x / 3, labels) != pytest.approx(hyp(dim=3)(x, labels).item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_low_temperature_does_not_underflow(dtype):
    """Of the first image, all negatives are far away, and the positive is farther."""
    v = [[0.0, 2.3], [0.0, -2.3], [2.3, 0.0], [2.0, 0.2]]
    x = torch.tensor(v, dtype=dtype).requires_grad_()
    loss = hyp(temperature=0.02)
    value = loss(x, torch.tensor([0, 0, 1, 1]))
    distance = loss._distances(x.detach().double())
    logits = (-distance / 0.02).fill_diagonal_(-torch.inf)
    expected = functional.cross_entropy(logits, torch.tensor([1, 0, 3, 2]))
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)
    value.backward()
    assert x.grad.isfinite().all()


def test_a_batch_without_negatives_or_positives_has_no_loss():
    x = torch.randn(4, 2, requires_grad=True)
    for labels in ([0, 0, 0, 0], [0, 1, 2, 3]):
        value = hyp()(x, torch.tensor(labels))
        value.backward()
        assert value.item() == 0
        assert not x.grad.any()


def test_embeddings_of_zero_length_are_the_origin():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.5]], requires_grad=True)
    loss = hyp()
    assert loss._distances(x)[0].tolist() == pytest.approx([0, 2, 0, 3], abs=1e-5)
    loss(x, torch.tensor([0, 0, 1, 1])).backward()
    assert x.grad.isfinite().all()
