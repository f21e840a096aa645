"""Sampling Matters in Deep Embedding Learning.

Wu, Manmatha, Smola, Krähenbühl; ICCV 2017; arXiv 1706.07567. Positives are pulled to within
beta - margin of an anchor, negatives are pushed beyond beta + margin; the boundary beta is learnt.
Negatives are drawn by the inverse density of their distance, so that all distances are seen.

Defaults: the paper's margin, initial beta, and cutoffs of the sampling (0.5 and 1.4). The learning
rate of beta is that of Roth et al. (ICML 2020): 5e-4, where the backbone has 1e-5.

Family: pairs.

Differs: beta has a value for each class, and no regulariser (nu is 0).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pytorch_metric_learning.losses import MarginLoss
from pytorch_metric_learning.miners import DistanceWeightedMiner
from torch import Tensor

from dmlbench.losses._pml import PmlLoss

LEAST = {"margin": 0, "beta": 0, "beta_lr_factor": 0}
MOST = {"margin": 1000, "beta": 1000}
LEAST_IMAGES_PER_CLASS = 2
ONLY_WITH = {"beta_lr_factor": {"learn_beta": (True,)}}
SEARCH_SPACE = {
    "margin": {"low": 0.02, "high": 0.5, "log": True},
    "beta": {"low": 0.6, "high": 1.4},
    "beta_lr_factor": {"low": 1.0, "high": 1000.0, "log": True},
}


class Margin(PmlLoss):
    """Margin loss on triplets sampled by distance, or on all. `beta` is its initial boundary.

    Samples are drawn by torch's global generator.
    """

    BY_DESIGN: ClassVar = {
        "order": "draws pairs, class by class",
        "numbering": "draws pairs, class by class",
        "random": "draws the negatives of its pairs, by their distance",
    }

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        margin: float = 0.2,
        beta: float = 1.2,
        learn_beta: bool = True,
        mining: Literal["distance_weighted", "all"] = "distance_weighted",
        beta_lr_factor: float = 50.0,
    ) -> None:
        criterion = MarginLoss(
            margin,
            beta=beta,
            learn_beta=learn_beta,
            num_classes=num_classes if learn_beta else None,
        )
        miner = DistanceWeightedMiner() if mining == "distance_weighted" else None
        super().__init__(criterion, miner, beta_lr_factor)
