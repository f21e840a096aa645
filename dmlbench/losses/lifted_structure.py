"""Deep Metric Learning via Lifted Structured Feature Embedding.

Song, Xiang, Jegelka, Savarese; CVPR 2016; arXiv 1511.06452. Each positive pair is compared with
all negatives of its two images.

Defaults: the paper's margin.

It does not wrap pytorch-metric-learning, whose value and gradient it has: version 2.9 compares
every positive pair with every negative pair of the batch, and so takes the square of the memory.

Family: pairs.

Differs: embeddings are set to unit length, and all pairs of the batch are used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dmlbench.losses.base import Loss, distances, pair_masks, unit_length

LEAST = {"margin": 0}
MOST = {"margin": 1000}
LEAST_IMAGES_PER_CLASS = 2
SEARCH_SPACE = {"margin": {"low": 0.2, "high": 2.0}}


class LiftedStructure(Loss):
    """Mean over positive pairs of half the squared hinge of d + log sum exp(`margin` - d_neg).

    d is the distance of the pair; d_neg are the distances of its two images to their negatives
    (equation 4 of the paper). Without negatives the loss is 0.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        margin: float = 1.0,
    ) -> None:
        super().__init__()
        self.margin = margin

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        unit = unit_length(embeddings)
        distance = distances(unit, unit)
        positive, negative = pair_masks(labels)
        nearness = (self.margin - distance).masked_fill(~negative, -torch.inf).logsumexp(dim=1)
        hinge = (distance + torch.logaddexp(nearness[:, None], nearness)).relu()
        return (hinge.square() * positive).sum() / (2 * positive.sum().clamp(min=1))
