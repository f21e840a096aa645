import math

import pytest
import torch
from torch.nn import functional

from dmlbench.losses import create_loss
from dmlbench.losses.normalized_softmax import normalized_softmax


def test_oracle_value(batch, at):
    value = normalized_softmax(*batch, at(0, 90), temperature=0.05)
    assert value.item() == pytest.approx(1.83029242, abs=1e-8)


def test_agrees_with_a_loop():
    x = torch.randn(8, 5, dtype=torch.float64)
    proxies = torch.randn(3, 5, dtype=torch.float64)
    labels = torch.randint(3, (8,))
    expected = []
    for embedding, label in zip(x, labels, strict=True):
        cosine = [functional.cosine_similarity(embedding, p, dim=0).item() for p in proxies]
        exponentials = [math.exp(s / 0.2) for s in cosine]
        expected.append(-math.log(exponentials[label] / sum(exponentials)))
    value = normalized_softmax(x, labels, proxies, temperature=0.2)
    assert value.item() == pytest.approx(sum(expected) / 8, abs=1e-12)


def test_proxies_start_and_learn_as_in_the_authors_code():
    loss = create_loss("normalized_softmax", 50, 400)
    assert loss.proxies.abs().max().item() == pytest.approx(400**-0.5, rel=0.01)
    (group,) = loss.param_groups(1e-2)
    assert group["lr"] == 1e-2
