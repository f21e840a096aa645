"""Improved Deep Metric Learning with Multi-class N-pair Loss Objective.

Sohn; NIPS 2016. Softmax cross-entropy of an anchor's inner products with its own positive and with
those of the other classes of the batch, on embeddings of any length.

One pair per class is used: the first two images in the batch. So set `images_per_class: 2` in the
recipe. A class with one image in the batch is left out.

Defaults: the penalty on squared lengths is that of Roth et al. (ICML 2020), 0.02 x 0.25.

Family: pairs.

Differs: the penalty is on all embeddings of the batch; classes are not mined.
"""

from __future__ import annotations

from typing import ClassVar

from pytorch_metric_learning.distances import DotProductSimilarity
from pytorch_metric_learning.losses import NPairsLoss
from pytorch_metric_learning.regularizers import LpRegularizer
from torch import Tensor

from dmlbench.losses._pml import PmlLoss

LEAST = {"l2_weight": 0}
MOST = {"l2_weight": 1000}
LEAST_IMAGES_PER_CLASS = 2
SEARCH_SPACE = {"l2_weight": {"low": 1e-4, "high": 0.1, "log": True}}


class NPair(PmlLoss):
    """N-pair loss + `l2_weight` x the mean squared length."""

    BY_DESIGN: ClassVar = {
        "order": "the pair of a class is its first two images in the batch",
        "length": "inner products of the embeddings as they are",
    }

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        l2_weight: float = 0.005,
    ) -> None:
        super().__init__(
            NPairsLoss(
                distance=DotProductSimilarity(normalize_embeddings=False),
                embedding_regularizer=LpRegularizer(p=2, power=2),
                embedding_reg_weight=l2_weight,
            )
        )
