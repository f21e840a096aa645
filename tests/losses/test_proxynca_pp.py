import math

import pytest
import torch
from pytorch_metric_learning.losses import ProxyNCALoss

from dmlbench.losses import create_loss


def with_proxies(proxies, **options):
    loss = create_loss("proxynca_pp", *proxies.shape, **options).to(proxies.dtype)
    loss.proxies.data = proxies.clone()
    return loss


@pytest.mark.parametrize(("scale", "value"), [(1, 0.37637488), (9, 1.64745813), (32, 5.85640646)])
def test_oracle_values(scale, value, batch, at):
    loss = with_proxies(at(0, 90), temperature=1 / scale)
    assert loss(*batch).item() == pytest.approx(value, abs=1e-8)


def test_the_default_temperature_is_one_ninth(batch, at):
    assert with_proxies(at(0, 90))(*batch).item() == pytest.approx(1.64745813, abs=1e-8)


def test_a_temperature_of_one_ninth_equals_the_authors_length_of_three():
    """The authors set embeddings and proxies to length 3, and take squared distances."""
    x, proxies = torch.randn(8, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    labels = torch.randint(3, (8,))
    points, anchors = (3 * v / v.norm(dim=1, keepdim=True) for v in (x, proxies))
    squared = ((points[:, None] - anchors) ** 2).sum(dim=2)
    expected = -(-squared).log_softmax(dim=1)[torch.arange(8), labels].mean()
    torch.testing.assert_close(with_proxies(proxies)(x, labels), expected)


def test_agrees_with_a_loop_and_with_pytorch_metric_learning():
    x = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    proxies = torch.randn(3, 5, dtype=torch.float64)
    labels = torch.randint(3, (8,))
    loss, library = with_proxies(proxies), ProxyNCALoss(3, 5, softmax_scale=9)
    library.proxies.data = proxies.clone()
    value, expected = loss(x, labels), library(x, labels)
    unit, anchors = torch.nn.functional.normalize(x), torch.nn.functional.normalize(proxies)
    total = 0.0
    for embedding, label in zip(unit, labels, strict=True):
        exponentials = [math.exp(-9 * ((embedding - p) ** 2).sum().item()) for p in anchors]
        total -= math.log(exponentials[label] / sum(exponentials))
    assert value.item() == pytest.approx(total / 8, abs=1e-12)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        torch.autograd.grad(value, [x, loss.proxies]),
        torch.autograd.grad(expected, [x, library.proxies]),
    )


def test_gradients_are_those_of_finite_differences():
    labels = torch.tensor([0, 2, 1, 2])
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    proxies = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    loss = create_loss("proxynca_pp", 3, 3)

    def value(x, proxies):
        return torch.func.functional_call(loss, {"proxies": proxies}, (x, labels))

    assert torch.autograd.gradcheck(value, (x, proxies))


def test_the_proxy_of_the_true_class_is_in_the_denominator(at):
    # Otherwise the loss of an embedding on its proxy would be negative
    assert with_proxies(at(0, 180))(at(0), torch.tensor([0])).item() >= 0


def test_proxies_start_as_in_the_authors_code_and_learn_100_times_faster():
    loss = create_loss("proxynca_pp", 200, 100)
    assert loss.proxies.std().item() == pytest.approx(1 / 8, rel=0.03)
    (group,) = loss.param_groups(1e-3)
    assert group["lr"] == pytest.approx(0.1)
