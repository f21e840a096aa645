"""Deep Metric Learning via Lifted Structured Feature Embedding.

Song, Xiang, Jegelka, Savarese; CVPR 2016; arXiv 1511.06452. Each positive pair is compared with
all negatives of its two images.

Defaults: the paper's margin.

Family: pairs.

Differs: embeddings are set to unit length, and all pairs of the batch are used.
"""

from __future__ import annotations

from pytorch_metric_learning.losses import LiftedStructureLoss
from torch import Tensor

from dmlbench.losses._pml import PmlLoss

LEAST = {"margin": 0}
MOST = {"margin": 1000}
LEAST_IMAGES_PER_CLASS = 2
SEARCH_SPACE = {"margin": {"low": 0.2, "high": 2.0}}


class LiftedStructure(PmlLoss):
    """Mean over positive pairs of half the squared hinge of d + log sum exp(`margin` - d_neg).

    d is the distance of the pair; d_neg are the distances of its two images to their negatives.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        margin: float = 1.0,
    ) -> None:
        super().__init__(LiftedStructureLoss(neg_margin=margin))
