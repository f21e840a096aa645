import math

import pytest
import torch

from dmlbench.losses import create_loss
from dmlbench.losses.proxygml import classify

SETTINGS = {"proxies_per_class": 1, "ratio": 0.5, "regularization": 0.0}


def test_oracle_value_of_one_subgraph(at):
    # Proxies at 0, 90, 180 and 270 degrees; an image of class 1 at 30 degrees. Its subgraph has two
    # of them: that of its class, and the nearest other one.
    loss = create_loss("proxygml", 4, 2, **SETTINGS).double()
    loss.proxies.data = at(0, 90, 180, 270)[:, None]
    own, other = math.cos(math.radians(60)), math.cos(math.radians(30))
    expected = math.log(math.exp(own) + math.exp(other)) - own
    assert loss(at(30), torch.tensor([1])).item() == pytest.approx(expected, abs=1e-12)


def test_value_is_that_of_the_authors_formula():
    """Their exponentials of one matrix, whose zeros are what is not in the subgraph."""
    loss = create_loss("proxygml", 50, 8, proxies_per_class=4, regularization=0.0).double()
    x, labels = torch.randn(6, 8, dtype=torch.float64), torch.tensor([0, 7, 7, 30, 49, 2])
    unit = torch.nn.functional.normalize
    similarity = unit(x) @ unit(loss.proxies, dim=2).flatten(0, 1).T
    own = labels[:, None] == torch.arange(50).repeat_interleave(4)
    nearest = (similarity + 1000 * own).topk(10).indices
    logits = torch.zeros_like(similarity).scatter(1, nearest, 1) * similarity
    logits = logits @ torch.eye(50, dtype=torch.float64).repeat_interleave(4, 0)
    weights = logits.exp() * (logits != 0)
    expected = -(weights / weights.sum(1, keepdim=True))[range(6), labels].log().mean()
    torch.testing.assert_close(loss(x, labels), expected, rtol=1e-12, atol=0)


def test_a_subgraph_of_few_classes_has_proxies_of_other_classes():
    loss = create_loss("proxygml", 3, 8)  # 5 % of 36 proxies would be 2 of the own class
    x = torch.randn(5, 8, requires_grad=True)
    value = classify(x, torch.tensor([0, 1, 2, 0, 1]), loss.proxies, ratio=0.05)
    (gradient,) = torch.autograd.grad(value, x)
    assert value > 0
    assert gradient.abs().sum() > 0


def test_the_regulariser_moves_proxies_of_classes_that_no_image_is_near():
    x, labels = torch.randn(2, 8), torch.tensor([0, 1])
    for weight, moves in ((0.3, True), (0.0, False)):
        loss = create_loss("proxygml", 100, 8, ratio=1e-6, regularization=weight)
        loss(x, labels).backward()
        assert (loss.proxies.grad.flatten(1).abs().sum(1) > 0).all() == moves


def test_proxies_start_as_the_authors_and_learn_at_their_rate():
    loss = create_loss("proxygml", 20, 8, proxies_per_class=5)
    (group,) = loss.param_groups(1e-4)
    assert group["lr"] == pytest.approx(0.03)
    assert loss.proxies.shape == (20, 5, 8)
    assert 0.099 < loss.proxies.abs().max() <= 0.1  # 1 / sqrt(20 * 5)
