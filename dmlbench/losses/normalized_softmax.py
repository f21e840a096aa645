"""Classification is a Strong Baseline for Deep Metric Learning.

Zhai, Wu; BMVC 2019; arXiv 1811.12649. Softmax cross-entropy on cosines to one proxy per
class.

Defaults: the paper's temperature; initial proxies and their learning rate as in the authors' code,
which trains them at the rate of the backbone (SGD, 0.01). With Adam's small rates a larger
`proxies_lr_factor` is common, so the search space reaches to 1000.

Family: classification.

Differs: the paper's layer norm and class-balanced batches are settings of the recipe.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmlbench.losses.base import Loss, unit_length

LEAST = {"proxies_lr_factor": 0, "temperature": 1e-6}
SEARCH_SPACE = {
    "temperature": {"low": 0.01, "high": 0.2, "log": True},
    "proxies_lr_factor": {"low": 1.0, "high": 1000.0, "log": True},
}


class NormalizedSoftmax(Loss):
    """Cross-entropy of the cosines to the proxies, divided by `temperature`."""

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        temperature: float = 0.05,
        proxies_lr_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.proxies_lr_factor = proxies_lr_factor
        self.proxies = nn.Parameter(initial_proxies(num_classes, embedding_dim))

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return normalized_softmax(embeddings, labels, self.proxies, temperature=self.temperature)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        return [{"params": [self.proxies], "lr": lr * self.proxies_lr_factor}]


def initial_proxies(num_classes: int, embedding_dim: int) -> Tensor:
    """Random proxies (C, D), uniform in +-1/sqrt(D) as in the authors' code."""
    bound = embedding_dim**-0.5
    return nn.init.uniform_(torch.empty(num_classes, embedding_dim), -bound, bound)


def normalized_softmax(
    embeddings: Tensor, labels: Tensor, proxies: Tensor, *, temperature: float
) -> Tensor:
    """Loss of `embeddings` (N, D) with `labels` (N,) on `proxies` (C, D), all of any length."""
    similarity = unit_length(embeddings) @ unit_length(proxies.to(embeddings.dtype)).T
    return functional.cross_entropy(similarity / temperature, labels)
