"""CosFace: Large Margin Cosine Loss for Deep Face Recognition.

Wang, Wang, Zhou, Ji, Gong, Zhou, Li, Liu; CVPR 2018; arXiv 1801.09414. Softmax cross-entropy on
cosines to one proxy per class; the cosine of the true class is lowered by a margin.

Defaults: the paper's for faces (margin 0.35, scale 64); the proxies learn at the backbone's rate.

Family: classification.

Differs: proxies start as standard normal draws (pytorch-metric-learning's).
"""

from __future__ import annotations

from pytorch_metric_learning.losses import CosFaceLoss
from torch import Tensor

from dmlbench.losses._pml import PmlLoss

LEAST = {"margin": 0, "proxies_lr_factor": 0}
ABOVE = {"scale": 0}
MOST = {"margin": 1000, "scale": 10000}
SEARCH_SPACE = {
    "margin": {"low": 0.05, "high": 0.7},
    "scale": {"low": 8.0, "high": 256.0, "log": True},
    "proxies_lr_factor": {"low": 1.0, "high": 1000.0, "log": True},
}


class CosFace(PmlLoss):
    """Cross-entropy of `scale` x cosine, with `margin` taken from the cosine of the true class.

    Equation 4 of the paper.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        margin: float = 0.35,
        scale: float = 64.0,
        proxies_lr_factor: float = 1.0,
    ) -> None:
        criterion = CosFaceLoss(num_classes, embedding_dim, margin=margin, scale=scale)
        super().__init__(criterion, lr_factor=proxies_lr_factor)
