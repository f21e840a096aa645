"""Proxy Anchor Loss for Deep Metric Learning.

Kim, Kim, Cho, Kwak; CVPR 2020; arXiv 2003.13911. Each proxy is an anchor. It pulls the
batch's embeddings of its class and pushes all others, the hardest ones most.

Defaults: the paper's and the authors' code (alpha, delta, proxies at 100 times the rate of the
backbone).

Family: proxies.

Differs: the authors' warm-up epoch, and their pooling by sum of average and maximum, are settings
of the recipe.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dmlbench.losses.base import Loss, class_mask, unit_length

LEAST = {"proxies_lr_factor": 0}
ABOVE = {"alpha": 0}
MOST = {"alpha": 10000, "delta": 1000}
SEARCH_SPACE = {
    "alpha": {"low": 8.0, "high": 128.0, "log": True},
    "delta": {"low": 0.0, "high": 0.5},
    "proxies_lr_factor": {"low": 1.0, "high": 1000.0, "log": True},
}


class ProxyAnchor(Loss):
    """Proxy Anchor: log-sum-exp of positives and of negatives per proxy; the paper's equation 4."""

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        alpha: float = 32.0,
        delta: float = 0.1,
        proxies_lr_factor: float = 100.0,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.delta = delta
        self.proxies_lr_factor = proxies_lr_factor
        self.proxies = nn.Parameter(initial_proxies(num_classes, embedding_dim))

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return proxy_anchor(embeddings, labels, self.proxies, alpha=self.alpha, delta=self.delta)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        return [{"params": [self.proxies], "lr": lr * self.proxies_lr_factor}]


def initial_proxies(num_classes: int, embedding_dim: int) -> Tensor:
    """Random proxies (C, D), normal with variance 2/C as in the authors' code."""
    return nn.init.kaiming_normal_(torch.empty(num_classes, embedding_dim), mode="fan_out")


def proxy_anchor(
    embeddings: Tensor, labels: Tensor, proxies: Tensor, *, alpha: float, delta: float
) -> Tensor:
    """Loss of `embeddings` (N, D) with `labels` (N,) on `proxies` (C, D), all of any length.

    The pull is a mean over the proxies with a positive in the batch, the push over all proxies.
    """
    similarity = unit_length(embeddings) @ unit_length(proxies.to(embeddings.dtype)).T
    positive = class_mask(labels, len(proxies))
    pull = _log1p_sum_exp(-alpha * (similarity - delta), positive)
    push = _log1p_sum_exp(alpha * (similarity + delta), ~positive)
    present = positive.any(dim=0).sum()
    return pull.sum() / present.clamp(min=1) + push.mean()


def _log1p_sum_exp(logits: Tensor, mask: Tensor) -> Tensor:
    """log(1 + sum of exp(logits) over the rows in `mask`) of each column; 0 without such a row."""
    zero = torch.zeros_like(logits[:1])  # exp(0) is the 1
    return torch.cat([zero, logits.masked_fill(~mask, -torch.inf)]).logsumexp(dim=0)
