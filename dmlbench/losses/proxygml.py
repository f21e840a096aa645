"""Fewer is More: A Deep Graph Metric Learning Perspective Using Fewer Proxies (ProxyGML).

Zhu, Yang, Deng, Liu; NeurIPS 2020; arXiv 2010.13636. Each embedding is classified by the proxies
that are nearest to it, and all proxies of its class: they are its subgraph.

Defaults: the authors' code (YuehuaZhu/ProxyGML) for CUB and Cars. For SOP it has 1 proxy per class,
a `regularization` of 0, and ten times this rate of the proxies. It says that its numbers of proxies
and its ratios are better than those of the paper.

Family: proxies.

Differs: not in value, for the authors' settings. But a subgraph has at least as many proxies of
other classes as of its own: with few classes, the ratio alone would leave none, and the loss would
be 0. And proxies that tie with the last one of a subgraph are in it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmlbench.losses.base import Loss, class_mask, unit_length
from dmlbench.losses.softtriple import initial_centers

LEAST = {"proxies_per_class": 1, "regularization": 0, "proxies_lr_factor": 0}
ABOVE = {"ratio": 0}
MOST = {"proxies_per_class": 1000, "ratio": 1, "regularization": 1000}
SEARCH_SPACE = {
    "ratio": {"low": 0.01, "high": 0.5, "log": True},
    "regularization": {"low": 0.01, "high": 1.0, "log": True},
    "proxies_lr_factor": {"low": 1.0, "high": 1000.0, "log": True},
}


class ProxyGML(Loss):
    """ProxyGML. `ratio` is r, the part of all proxies in a subgraph; `regularization` is lambda."""

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        proxies_per_class: int = 12,
        ratio: float = 0.05,
        regularization: float = 0.3,
        proxies_lr_factor: float = 300.0,
    ) -> None:
        super().__init__()
        self.ratio = ratio
        self.regularization = regularization
        self.proxies_lr_factor = proxies_lr_factor
        self.proxies = nn.Parameter(initial_centers(num_classes, proxies_per_class, embedding_dim))

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        proxies = unit_length(self.proxies.to(embeddings.dtype))
        loss = classify(unit_length(embeddings), labels, proxies, self.ratio)
        if self.regularization == 0:
            return loss
        return loss + self.regularization * classify_proxies(proxies)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        return [{"params": [self.proxies], "lr": lr * self.proxies_lr_factor}]


def classify(embeddings: Tensor, labels: Tensor, proxies: Tensor, ratio: float) -> Tensor:
    """Cross-entropy of the classes in each embedding's subgraph; mean over the embeddings.

    The logit of a class is the sum of the cosines to those of its proxies that are in the subgraph.
    A class without such a proxy is left out.

    Args:
        embeddings: (N, D), of unit length.
        proxies: (C, K, D), of unit length.
        ratio: the part of the C K proxies that are in a subgraph.
    """
    num_classes, per_class, _ = proxies.shape
    count = num_classes * per_class
    size = min(count, max(math.ceil(ratio * count), 2 * per_class))
    similarity = embeddings @ proxies.flatten(0, 1).T
    own = class_mask(labels, num_classes).repeat_interleave(per_class, dim=1)
    ranked = similarity.detach().masked_fill(own, torch.inf)
    chosen = ranked >= ranked.topk(size, dim=1).values[:, -1:]
    by_class = (num_classes, per_class)
    logits = (similarity * chosen).unflatten(1, by_class).sum(dim=2)
    present = chosen.unflatten(1, by_class).any(dim=2)
    return functional.cross_entropy(logits.masked_fill(~present, -torch.inf), labels)


def classify_proxies(proxies: Tensor) -> Tensor:
    """Cross-entropy of the class of each proxy, by the sums of its cosines to those of each class.

    It is the regulariser: proxies of a class stay together, and away from others. As in the
    authors' code, a proxy is also compared with itself.

    Args:
        proxies: (C, K, D), of unit length.
    """
    num_classes, per_class, _ = proxies.shape
    logits = proxies.flatten(0, 1) @ proxies.sum(dim=1).T
    classes = torch.arange(num_classes, device=logits.device).repeat_interleave(per_class)
    return functional.cross_entropy(logits, classes)
