from itertools import product

import pytest
import torch
from torch.nn import functional

from dmlbench.losses import create_loss


def reference(embeddings, labels, margin, squared, mining):
    unit = functional.normalize(embeddings)
    hinges = []
    for a, p, n in product(range(len(labels)), repeat=3):
        if a == p or labels[a] != labels[p] or labels[a] == labels[n]:
            continue
        ap, an = (torch.linalg.vector_norm(unit[a] - unit[b]) for b in (p, n))
        if squared:
            ap, an = ap**2, an**2
        mined = {"all": True, "semihard": an > ap, "hard": an <= ap}[mining]
        if mined and ap - an + margin > 0:
            hinges.append(ap - an + margin)
    return torch.stack(hinges).mean()


@pytest.mark.parametrize(("squared", "value"), [(False, 0.65964579), (True, 1.02136721)])
def test_oracle_values_without_mining(squared, value, batch):
    loss = create_loss("triplet", 2, 2, squared=squared, mining="all")
    assert loss(*batch).item() == pytest.approx(value, abs=1e-8)


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("mining", ["semihard", "hard", "all"])
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_agrees_with_a_loop_in_value_and_gradient(squared, mining, spread):
    # At near points, margins of distances and of squared distances differ most
    x = 0.5 + spread * torch.randn(12, 4, dtype=torch.float64)
    x.requires_grad_()
    labels = torch.arange(12) % 4
    value = create_loss("triplet", 4, 4, squared=squared, mining=mining)(x, labels)
    expected = reference(x, labels, 0.2, squared, mining)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        torch.autograd.grad(value, x), torch.autograd.grad(expected, x), rtol=1e-8, atol=1e-10
    )


def test_semi_hard_squared_distances_are_the_default():
    x, labels = torch.randn(12, 4, dtype=torch.float64), torch.arange(12) % 4
    torch.testing.assert_close(
        create_loss("triplet", 4, 4)(x, labels), reference(x, labels, 0.2, True, "semihard")
    )
