import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from dmlbench.losses import create_loss
from dmlbench.losses.proxy_anchor import proxy_anchor

SETTINGS = {"alpha": 32.0, "delta": 0.1}


def reference(embeddings, labels, proxies, alpha, delta):
    """The paper's formulas, proxy by proxy."""
    pull, push, present = [], [], 0
    for c, proxy in enumerate(functional.normalize(proxies)):
        cosine = [functional.normalize(x, dim=0) @ proxy for x in embeddings]
        same = [
            torch.exp(-alpha * (s - delta)) for s, y in zip(cosine, labels, strict=True) if y == c
        ]
        other = [
            torch.exp(alpha * (s + delta)) for s, y in zip(cosine, labels, strict=True) if y != c
        ]
        present += bool(same)
        pull.append(torch.log(1 + sum(same)) if same else 0)
        push.append(torch.log(1 + sum(other)) if other else 0)
    return sum(pull) / present + sum(push) / len(proxies)


def test_oracle_value(batch, at):
    value = proxy_anchor(*batch, at(0, 90), **SETTINGS)
    assert value.item() == pytest.approx(18.69636117, abs=1e-8)


def test_value_of_one_embedding(at):
    """The positive part is 3.1068e-13, the negative one log(1 + e^3.2) / 2."""
    x, y, proxies = at(0), torch.tensor([0]), at(0, 90)
    value = proxy_anchor(x, y, proxies, **SETTINGS)
    assert value.item() == pytest.approx(math.log1p(math.exp(3.2)) / 2, abs=1e-12)
    assert value.item() == pytest.approx(1.6199766666, abs=1e-9)
    pull = proxy_anchor(x, y, proxies[:1], **SETTINGS)  # with one class there is no push
    assert pull.item() == pytest.approx(3.1068e-13, abs=1e-16)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**31), st.sampled_from([4.0, 32.0]))
def test_value_and_gradient_agree_with_a_loop(n, classes, seed, alpha):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, dtype=torch.float64, generator=generator).requires_grad_()
    proxies = torch.randn(classes, 4, dtype=torch.float64, generator=generator).requires_grad_()
    labels = torch.randint(classes, (n,), generator=generator)
    value = proxy_anchor(x, labels, proxies, alpha=alpha, delta=0.1)
    expected = reference(x, labels.tolist(), proxies, alpha, 0.1)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    for a, b in zip(
        torch.autograd.grad(value, (x, proxies)),
        torch.autograd.grad(expected, (x, proxies)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_large_alpha_does_not_overflow(at):
    value = proxy_anchor(at(0, 180), torch.tensor([0, 1]), at(180, 0), alpha=1e4, delta=0.1)
    assert value.item() == pytest.approx(1e4 * 1.1 * 2, rel=1e-9)


def test_proxies_start_as_in_the_authors_code_and_learn_100_times_faster():
    loss = create_loss("proxy_anchor", 400, 300)
    assert loss.proxies.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    (group,) = loss.param_groups(1e-4)
    assert group["lr"] == pytest.approx(1e-2)
