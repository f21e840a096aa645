"""SoftTriple Loss: Deep Metric Learning Without Triplet Sampling.

Qian, Shang, Sun, Hu, Li, Jin; ICCV 2019; arXiv 1909.05235. Softmax cross-entropy on relaxed
similarities to several centres per class. A regulariser merges centres that are not needed.

Defaults: the authors' code (idstcv/SoftTriple), which the paper's CUB and Cars runs use. Keep
`centers_per_class` below the number of images per class (the authors use 2 on SOP).

Family: proxies.

Differs: not in value. Pairs of centres are formed class by class and not among all C x K, which
takes less time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmlbench.losses.base import Loss, class_mask, unit_length

LEAST = {"centers_per_class": 1, "tau": 0, "centers_lr_factor": 0, "gamma": 1e-6}
ABOVE = {"la": 0}
MOST = {"centers_per_class": 1000, "la": 10000, "tau": 1000, "margin": 1000}
MERGED = 0.1
"""Distance of unit vectors below which two centres count as one. No embedding's similarities to
them differ by more. At the paper's gamma that changes their weights by a factor of e at most."""
SEARCH_SPACE = {
    "la": {"low": 5.0, "high": 100.0, "log": True},
    "gamma": {"low": 0.01, "high": 1.0, "log": True},
    "tau": {"low": 0.01, "high": 1.0, "log": True},
    "margin": {"low": 0.0, "high": 0.5},
    "centers_lr_factor": {"low": 1.0, "high": 1000.0, "log": True},
}


class SoftTriple(Loss):
    """SoftTriple. `la` is lambda, `margin` is delta, and `tau` is the weight of the regulariser."""

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

    def statistics(self) -> dict[str, float]:
        """`distinct_centers`: distinct centres of a class, mean over the classes."""
        return {"distinct_centers": distinct_centers(self.centers).double().mean().item()}

    def artefact(self) -> dict[str, Any]:
        """`distinct_centers` of each class, (C,); `merged`, the distance that makes two one."""
        return {"distinct_centers": distinct_centers(self.centers).tolist(), "merged": MERGED}


def initial_centers(num_classes: int, centers_per_class: int, embedding_dim: int) -> Tensor:
    """Random centres (C, K, D), as kaiming_uniform_(a=sqrt(5)) of the authors' (D, C K) matrix."""
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
    """Loss of `embeddings` (N, D) with `labels` (N,) on `centers` (C, K, D), all of any length.

    The options are those of `SoftTriple`. The regulariser is `mean_center_distance`.
    """
    centers = unit_length(centers.to(embeddings.dtype))
    num_classes, per_class, _ = centers.shape
    # (N, K, C), since a softmax over a short last dimension is twice as slow
    similarity = (unit_length(embeddings) @ centers.transpose(0, 1).flatten(0, 1).T).unflatten(
        1, (per_class, num_classes)
    )
    relaxed = ((similarity / gamma).softmax(dim=1) * similarity).sum(dim=1)
    positive = class_mask(labels, num_classes)
    logits = la * torch.where(positive, relaxed - margin, relaxed)
    loss = functional.cross_entropy(logits, labels)
    if tau == 0 or per_class == 1:
        return loss
    return loss + tau * mean_center_distance(centers)


def mean_center_distance(centers: Tensor) -> Tensor:
    """Sum of the distances of all pairs of centres of a class, divided by C K (K - 1).

    That is half their mean distance. The authors' 1e-5 keeps the gradient finite where two centres
    have merged.

    Args:
        centers: (C, K, D), of unit length; K is 2 or more.
    """
    num_classes, per_class, _ = centers.shape
    # The product is symmetric: its gradient is twice that of one factor, and takes half the memory
    half = centers @ centers.detach().mT
    cosine = half + half.mT - half.detach()
    distance = (2 + 1e-5 - 2 * cosine).sqrt()
    return distance.triu(diagonal=1).sum() / (num_classes * per_class * (per_class - 1))


@torch.no_grad()
def distinct_centers(centers: Tensor) -> Tensor:
    """Number of distinct centres of each class (C,), int64.

    Two centres count as one if their distance is below MERGED, or if a chain of such centres joins
    them.

    Args:
        centers: (C, K, D), of any length.
    """
    unit = unit_length(centers)
    joined = 2 - 2 * (unit @ unit.mT) < MERGED**2
    for _ in range(centers.shape[1].bit_length()):  # each round joins chains twice as long
        joined = (joined.float() @ joined.float()) > 0
    # Only the first of the centres that are joined counts
    first = joined.int().argmax(dim=2)
    return (first == torch.arange(centers.shape[1], device=first.device)).sum(dim=1)
