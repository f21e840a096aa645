"""SoftTriple Loss: Deep Metric Learning Without Triplet Sampling.

Qian, Shang, Sun, Hu, Li, Jin; ICCV 2019; arXiv 1909.05235. Softmax cross-entropy on relaxed
similarities to several centres a class, and a regulariser that merges the needless ones.

Defaults: the authors' code (idstcv/SoftTriple), which the paper's CUB and Cars runs use. Keep
`centers_per_class` below the images a class has (the authors use 2 on SOP).

Differs: nothing but time: pairs of centres are formed class by class, not among all C x K.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmlbench.losses.base import Loss, class_mask, unit_length

LEAST = {"centers_per_class": 1, "tau": 0, "centers_lr_factor": 0}
ABOVE = {"la": 0, "gamma": 0}
SEARCH_SPACE = {
    "la": {"low": 5.0, "high": 100.0, "log": True},
    "gamma": {"low": 0.01, "high": 1.0, "log": True},
    "tau": {"low": 0.01, "high": 1.0, "log": True},
    "margin": {"low": 0.0, "high": 0.5},
    "centers_lr_factor": {"low": 1.0, "high": 1000.0, "log": True},
}


class SoftTriple(Loss):
    """SoftTriple; `la` is lambda, `margin` is delta, and `tau` weighs the regulariser."""

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        centers_per_class: int = 10,
        la: float = 20.0,
        gamma: float = 0.1,
        tau: float = 0.2,
        margin: float = 0.01,
        centers_lr_factor: float = 100.0,
    ) -> None:
        super().__init__()
        self.la = la
        self.gamma = gamma
        self.tau = tau
        self.margin = margin
        self.centers_lr_factor = centers_lr_factor
        self.centers = nn.Parameter(initial_centers(num_classes, centers_per_class, embedding_dim))

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        settings = {"la": self.la, "gamma": self.gamma, "tau": self.tau, "margin": self.margin}
        return softtriple(embeddings, labels, self.centers, **settings)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        return [{"params": [self.centers], "lr": lr * self.centers_lr_factor}]


def initial_centers(num_classes: int, centers_per_class: int, embedding_dim: int) -> Tensor:
    """Random centres (C, K, D): kaiming_uniform_(a=sqrt(5)) of the authors' (D, C K) matrix."""
    bound = (num_classes * centers_per_class) ** -0.5
    centers = torch.empty(num_classes, centers_per_class, embedding_dim)
    return nn.init.uniform_(centers, -bound, bound)


def softtriple(
    embeddings: Tensor,
    labels: Tensor,
    centers: Tensor,
    *,
    la: float,
    gamma: float,
    tau: float,
    margin: float,
) -> Tensor:
    """Loss of `embeddings` (N, D) with `labels` (N,) on `centers` (C, K, D), all of any length."""
    centers = unit_length(centers.to(embeddings.dtype))
    num_classes, per_class, _ = centers.shape
    # (N, K, C) and not (N, C, K): a softmax over the last, short dimension is twice as slow
    similarity = (unit_length(embeddings) @ centers.transpose(0, 1).flatten(0, 1).T).unflatten(
        1, (per_class, num_classes)
    )
    relaxed = ((similarity / gamma).softmax(dim=1) * similarity).sum(dim=1)
    own = class_mask(labels, num_classes)
    logits = la * torch.where(own, relaxed - margin, relaxed)
    loss = functional.cross_entropy(logits, labels)
    if tau == 0 or per_class == 1:
        return loss
    return loss + tau * mean_center_distance(centers)


def mean_center_distance(centers: Tensor) -> Tensor:
    """Sum over classes and pairs of unit `centers` (C, K, D) of their distance, by C K (K - 1).

    That is half the mean distance. The authors' 1e-5 keeps the gradient finite where two centres
    have merged.
    """
    num_classes, per_class, _ = centers.shape
    distance = (2 + 1e-5 - 2 * (centers @ centers.mT)).sqrt()
    return distance.triu(diagonal=1).sum() / (num_classes * per_class * (per_class - 1))
