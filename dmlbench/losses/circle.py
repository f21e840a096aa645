"""Circle Loss: A Unified Perspective of Pair Similarity Optimization.

Sun, Cheng, Zhang, Zhang, Zheng, Wang, Wei; CVPR 2020; arXiv 2002.10857. Each cosine is weighted by
how far it is from its optimum, which bends the decision boundary to a circle.

Defaults: the paper's for image retrieval (margin 0.4, gamma 80).

Family: pairs.

Differs: averaged over the anchors that have both positives and negatives.
"""

from __future__ import annotations

from typing import ClassVar

from pytorch_metric_learning.losses import CircleLoss
from torch import Tensor

from dmlbench.losses._pml import PmlLoss

ABOVE = {"gamma": 0}
MOST = {"margin": 1000, "gamma": 100000}
LEAST_IMAGES_PER_CLASS = 2
SEARCH_SPACE = {
    "margin": {"low": 0.1, "high": 0.6},
    "gamma": {"low": 16.0, "high": 256.0, "log": True},
}


class Circle(PmlLoss):
    """Circle loss on all pairs of the batch: equation 6 of the paper."""

    BY_DESIGN: ClassVar = {"gradient": "the pairs' weights are constants"}

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        margin: float = 0.4,
        gamma: float = 80.0,
    ) -> None:
        super().__init__(CircleLoss(margin, gamma))
