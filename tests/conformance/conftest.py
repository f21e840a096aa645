import logging

import pytest

from dmlbench.conformance import kit
from dmlbench.conformance.subject import find_loss

GOOD = '''\
"""A Made Loss.

Nobody, Noone; Nowhere 2020; arXiv 2001.00001. Cosines to proxies, and positives are pulled.

Differs: nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dmlbench.losses.base import Loss, pair_masks, unit_length

LEAST = {"weight": 0}
ABOVE = {"temperature": 0}
SEARCH_SPACE = {"temperature": {"low": 0.01, "high": 1.0, "log": True}}


class Made(Loss):
    def __init__(self, num_classes: int, embedding_dim: int, parents: Tensor | None = None, *,
                 temperature: float = 0.1, weight: float = 1.0):
        super().__init__()
        self.temperature = temperature
        self.weight = weight
        self.proxies = nn.Parameter(torch.randn(num_classes, embedding_dim))
        self.register_buffer("epoch", torch.tensor(0))

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        unit = unit_length(embeddings)
        cosine = unit @ unit.T
        positive, negative = pair_masks(labels)
        logits = unit @ unit_length(self.proxies.to(unit.dtype)).T / self.temperature
        pull = ((1 - cosine) * positive).sum() / positive.sum().clamp(min=1)
        extra = 0
        scale = 1 + 0.1 * self.epoch
        return scale * functional.cross_entropy(logits, labels) + self.weight * pull + extra

    def param_groups(self, lr):
        return [{"params": list(self.parameters()), "lr": lr}]

    @torch.no_grad()
    def refresh(self, embed):
        self.epoch += 1
        return ()

    def batches(self, labels, steps, batch_size, seed, epoch):
        random = np.random.default_rng([seed, epoch])
        return random.integers(len(labels), size=(steps, batch_size))


class _Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 3 * gradient
'''


@pytest.fixture
def good():
    """The text of a file with a loss that passes all checks."""
    return GOOD


@pytest.fixture
def write_loss(tmp_path):
    """Write the good loss to made.py with `new` in place of `old`, and find it there."""

    def write(old="", new="", options=None):
        assert old in GOOD
        path = tmp_path / "made.py"
        path.write_text(GOOD.replace(old, new, 1) if old else GOOD)
        return find_loss(str(path), options or {})

    return write


@pytest.fixture(autouse=True)
def _quiet():
    """Switch off the compiler's log: for pytest to collect it takes longer than all checks."""
    logging.disable(logging.DEBUG)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def failures():
    """The checks that a loss does not pass: name of the check -> result."""

    def run(subject):
        results = kit.run_checks(subject)
        return {
            result.check.name: result for result in results if result.verdict not in ("ok", "-")
        }

    return run
