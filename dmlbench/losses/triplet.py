"""FaceNet: A Unified Embedding for Face Recognition and Clustering.

Schroff, Kalenichenko, Philbin; CVPR 2015; arXiv 1503.03832. Triplet loss with semi-hard negatives:
farther from the anchor than the positive, but by less than the margin.

Defaults: the paper's margin and squared distances. Different from the paper: all semi-hard
triplets of the batch are used, and averaged over (by pytorch-metric-learning).
"""

from __future__ import annotations

from typing import Literal

from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import TripletMarginMiner
from torch import Tensor

from dmlbench.losses._pml import PmlLoss

SEARCH_SPACE = {"margin": {"low": 0.02, "high": 1.0, "log": True}}


class Triplet(PmlLoss):
    """Mean of d_ap - d_an + margin over the mined triplets that violate the margin.

    `mining` "all" takes every such triplet, "semihard" those with d_an > d_ap; "hard" the others.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        margin: float = 0.2,
        squared: bool = True,
        mining: Literal["semihard", "hard", "all"] = "semihard",
    ) -> None:
        distance = LpDistance(power=2 if squared else 1)
        super().__init__(
            TripletMarginLoss(margin, distance=distance),
            TripletMarginMiner(margin, type_of_triplets=mining, distance=distance),
        )
