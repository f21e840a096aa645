"""Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning.

Yuan, Deng, Tang, Tang, Chen; CVPR 2019; arXiv 1904.02616. The contrastive loss on another
distance: the variance of a pair's difference divided by the variance of its anchor, both across
dimensions, on embeddings of any length. A regulariser keeps the means of embeddings at zero.

Defaults: pytorch-metric-learning's margins; the weight of the regulariser is that of Roth et al.
(ICML 2020).

Family: pairs.

Differs: averaged over the pairs that violate their margin; an anchor without variance is at
distance 0 from all, with gradient 0.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pytorch_metric_learning.distances import SNRDistance
from pytorch_metric_learning.losses import SignalToNoiseRatioContrastiveLoss
from pytorch_metric_learning.regularizers import ZeroMeanRegularizer
from torch import Tensor

from dmlbench.losses._pml import PmlLoss

LEAST = {"positive_margin": 0, "negative_margin": 0, "mean_weight": 0}
MOST = {"positive_margin": 1000, "negative_margin": 1000, "mean_weight": 1000}
LEAST_IMAGES_PER_CLASS = 2
SEARCH_SPACE = {
    "positive_margin": {"low": 0.0, "high": 0.5},
    "negative_margin": {"low": 0.1, "high": 2.0},
    "mean_weight": {"low": 5e-4, "high": 0.05, "log": True},
}


class SNR(PmlLoss):
    """Contrastive loss of SNR distances + `mean_weight` x the mean of |sum of an embedding|."""

    BY_DESIGN: ClassVar = {
        "length": "the variances are of embeddings at their own length",
    }

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        positive_margin: float = 0.0,
        negative_margin: float = 1.0,
        mean_weight: float = 0.005,
    ) -> None:
        super().__init__(
            SignalToNoiseRatioContrastiveLoss(
                pos_margin=positive_margin,
                neg_margin=negative_margin,
                distance=_SNRDistance(normalize_embeddings=False),
                embedding_regularizer=ZeroMeanRegularizer(),
                embedding_reg_weight=mean_weight,
            )
        )


class _SNRDistance(SNRDistance):
    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        noise = (query_emb[:, None] - ref_emb).var(dim=2)
        signal = query_emb.var(dim=1)[:, None]
        return noise / torch.where(signal > torch.finfo(signal.dtype).tiny, signal, torch.inf)
