"""ArcFace: Additive Angular Margin Loss for Deep Face Recognition.

Deng, Guo, Xue, Zafeiriou; CVPR 2019; arXiv 1801.07698. Softmax cross-entropy on cosines to one
proxy per class; the angle to the proxy of the true class is widened by a margin.

Defaults: the paper's for faces (margin 0.5, scale 64); the proxies learn at the backbone's rate.

Family: classification.

Differs: proxies start as standard normal draws (pytorch-metric-learning's).
"""

from __future__ import annotations

import math

from pytorch_metric_learning.losses import ArcFaceLoss
from torch import Tensor

from dmlbench.losses._pml import PmlLoss

LEAST = {"margin": 0, "proxies_lr_factor": 0}
ABOVE = {"scale": 0}
MOST = {"margin": 1000, "scale": 10000}
SEARCH_SPACE = {
    "margin": {"low": 0.05, "high": 0.8},
    "scale": {"low": 8.0, "high": 256.0, "log": True},
    "proxies_lr_factor": {"low": 1.0, "high": 1000.0, "log": True},
}


class ArcFace(PmlLoss):
    """Cross-entropy of `scale` x cosine, with `margin` added to the angle of the true class.

    `margin` is in radians. Equation 3 of the paper.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        margin: float = 0.5,
        scale: float = 64.0,
        proxies_lr_factor: float = 1.0,
    ) -> None:
        degrees = math.degrees(margin)
        criterion = ArcFaceLoss(num_classes, embedding_dim, margin=degrees, scale=scale)
        super().__init__(criterion, lr_factor=proxies_lr_factor)
