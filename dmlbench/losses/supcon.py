"""Supervised Contrastive Learning.

Khosla, Teterwak, Wang, Sarna, Tian, Isola, Maschinot, Liu, Krishnan; NeurIPS 2020; arXiv
2004.11362. Softmax cross-entropy of each positive among all other images of the batch, on cosines.

Defaults: the paper's temperature of 0.1.

Family: pairs.

Differs: one augmented view per image; on the embedding itself, without a projection head that is
thrown away after training.
"""

from __future__ import annotations

from pytorch_metric_learning.losses import SupConLoss
from torch import Tensor

from dmlbench.losses._pml import PmlLoss

LEAST = {"temperature": 1e-6}
LEAST_IMAGES_PER_CLASS = 2
SEARCH_SPACE = {"temperature": {"low": 0.02, "high": 0.5, "log": True}}


class SupCon(PmlLoss):
    """Supervised contrastive loss, equation 2 of the paper: the mean over positives is outside the
    logarithm."""

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        temperature: float = 0.1,
    ) -> None:
        super().__init__(SupConLoss(temperature))
