"""ProxyNCA++: Revisiting and Revitalizing Proxy Neighborhood Component Analysis.

Teh, DeVries, Taylor; ECCV 2020; arXiv 2004.01113. Softmax cross-entropy on squared distances to
one proxy per class. Unlike in ProxyNCA, the proxy of the true class is in the denominator, and a
temperature sharpens the softmax.

Defaults: the paper's temperature of 1/9, which the authors' code gets by a length of 3 of
embeddings and proxies; that code's initial proxies. Its proxies learn at 100,000 times the rate of
the backbone, with Adam's eps at 1.0. With an ordinary eps this rate would tear them apart, so the
default here is Proxy Anchor's 100.

Family: proxies.

Differs: the paper's global max pooling, layer norm, class-balanced batches, and fast proxies by
Adam's eps of 1.0, are settings of the recipe.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmlbench.losses.base import Loss, squared_distances, unit_length

LEAST = {"proxies_lr_factor": 0, "temperature": 1e-6}
SEARCH_SPACE = {
    "temperature": {"low": 0.02, "high": 0.5, "log": True},
    "proxies_lr_factor": {"low": 1.0, "high": 1000.0, "log": True},
}


class ProxyNCAPP(Loss):
    """Cross-entropy of the negative squared distances to the proxies, divided by `temperature`."""

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        temperature: float = 0.1111111111111111,
        proxies_lr_factor: float = 100.0,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.proxies_lr_factor = proxies_lr_factor
        self.proxies = nn.Parameter(initial_proxies(num_classes, embedding_dim))

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return proxynca_pp(embeddings, labels, self.proxies, temperature=self.temperature)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        return [{"params": [self.proxies], "lr": lr * self.proxies_lr_factor}]


def initial_proxies(num_classes: int, embedding_dim: int) -> Tensor:
    """Random proxies (C, D), normal with deviation 1/8 as in the authors' code."""
    return torch.randn(num_classes, embedding_dim) / 8


def proxynca_pp(
    embeddings: Tensor, labels: Tensor, proxies: Tensor, *, temperature: float
) -> Tensor:
    """Loss of `embeddings` (N, D) with `labels` (N,) on `proxies` (C, D), all of any length."""
    proxies = unit_length(proxies.to(embeddings.dtype))
    distance = squared_distances(unit_length(embeddings), proxies)
    return functional.cross_entropy(-distance / temperature, labels)
