"""FaceNet: A Unified Embedding for Face Recognition and Clustering.

Schroff, Kalenichenko, Philbin; CVPR 2015; arXiv 1503.03832. Triplet loss with semi-hard negatives:
farther from the anchor than the positive, but by less than the margin.

Defaults: the paper's margin and squared distances. Distance-weighted mining is that of Wu et al.
(ICCV 2017, arXiv 1706.07567) with its cutoffs (0.5 and 1.4).

Family: pairs.

Differs: the loss is the mean over all semi-hard triplets of the batch.
"""

from __future__ import annotations

from typing import Literal

from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import DistanceWeightedMiner, TripletMarginMiner
from torch import Tensor

from dmlbench.losses._pml import PmlLoss

MOST = {"margin": 1000}
LEAST_IMAGES_PER_CLASS = 2
SEARCH_SPACE = {"margin": {"low": 0.02, "high": 1.0, "log": True}}


class Triplet(PmlLoss):
    """Mean of d_ap - d_an + `margin` over the mined triplets that violate the margin.

    d are distances of embeddings at unit length, `squared` or not. `mining` "all" takes every such
    triplet, "semihard" those with d_an > d_ap, "hard" the others. "distance_weighted" draws a
    negative by the inverse density of its distance, so that all distances are seen; it draws by
    torch's global generator.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        margin: float = 0.2,
        squared: bool = True,
        mining: Literal["semihard", "hard", "all", "distance_weighted"] = "semihard",
    ) -> None:
        distance = LpDistance(power=2 if squared else 1)
        super().__init__(
            TripletMarginLoss(margin, distance=distance),
            DistanceWeightedMiner()
            if mining == "distance_weighted"
            else TripletMarginMiner(margin, type_of_triplets=mining, distance=distance),
        )
