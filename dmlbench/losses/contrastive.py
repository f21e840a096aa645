"""Dimensionality Reduction by Learning an Invariant Mapping.

Hadsell, Chopra, LeCun; CVPR 2006. The contrastive loss: positives are pulled to within one
distance, negatives are pushed beyond another.

Defaults: pytorch-metric-learning's, for embeddings of unit length. Tuned on CUB, Cars and SOP, a
`negative_margin` of 0.4 to 0.5 was best (Musgrave, Belongie, Lim; ECCV 2020).

Family: pairs.

Differs: the violations are not squared, and are averaged over the pairs that violate.
"""

from __future__ import annotations

from pytorch_metric_learning.losses import ContrastiveLoss
from torch import Tensor

from dmlbench.losses._memory import create_memory
from dmlbench.losses._pml import PmlLoss

LEAST = {"positive_margin": 0, "negative_margin": 0, "memory": 2, "memory_start": 0}
MOST = {"positive_margin": 1000, "negative_margin": 1000}
LEAST_IMAGES_PER_CLASS = 2
HOLDS_BATCH = ("memory",)
SEARCH_SPACE = {
    "positive_margin": {"low": 0.0, "high": 0.5},
    "negative_margin": {"low": 0.1, "high": 1.5},
}


class Contrastive(PmlLoss):
    """Mean of d - `positive_margin` over positives + mean of `negative_margin` - d over negatives.

    Each mean is over the terms above 0. d is the Euclidean distance of embeddings at unit length.
    With `memory`, the same for the pairs of the batch and that many embeddings of batches before it
    is added (XBM; Wang et al., CVPR 2020), from the batch after `memory_start` on.

    Raises:
        ValueError: a `memory_start` without `memory`.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        positive_margin: float = 0.0,
        negative_margin: float = 1.0,
        memory: int | None = None,
        memory_start: int = 1000,
    ) -> None:
        super().__init__(
            ContrastiveLoss(positive_margin, negative_margin),
            memory=create_memory(memory, memory_start, embedding_dim),
        )
