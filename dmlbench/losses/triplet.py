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

from dmlbench.losses._memory import References, create_memory
from dmlbench.losses._pml import PmlLoss
from dmlbench.losses.base import distances, squared_distances, unit_length

LEAST = {"memory": 2, "memory_start": 0}
MOST = {"margin": 1000}
LEAST_IMAGES_PER_CLASS = 2
HOLDS_BATCH = ("memory",)
SEARCH_SPACE = {"margin": {"low": 0.02, "high": 1.0, "log": True}}


class Triplet(PmlLoss):
    """Mean of d_ap - d_an + `margin` over the mined triplets that violate the margin.

    d are distances of embeddings at unit length, `squared` or not. `mining` "all" takes every such
    triplet, "semihard" those with d_an > d_ap, "hard" the others. "distance_weighted" draws a
    negative by the inverse density of its distance, so that all distances are seen; it draws by
    torch's global generator.

    With `memory`, the same for anchors of the batch, and positives and negatives among that many
    embeddings of batches before it, is added (XBM; Wang et al., CVPR 2020), from the batch after
    `memory_start` on. It takes memory for each positive pair x `memory`.

    Raises:
        ValueError: a `memory_start` without `memory`; `memory` with mining "distance_weighted".
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
        memory: int | None = None,
        memory_start: int = 1000,
    ) -> None:
        if memory is not None and mining == "distance_weighted":
            raise ValueError(
                "memory is not used with mining: distance_weighted, only with semihard, hard or all"
            )
        distance = LpDistance(power=2 if squared else 1)
        super().__init__(
            TripletMarginLoss(margin, distance=distance),
            DistanceWeightedMiner()
            if mining == "distance_weighted"
            else TripletMarginMiner(margin, type_of_triplets=mining, distance=distance),
            memory=create_memory(memory, memory_start, embedding_dim),
        )
        self.margin, self.squared, self.mining = margin, squared, mining

    def memory_loss(self, embeddings: Tensor, references: References) -> Tensor:
        anchors, others = unit_length(embeddings), unit_length(references.embeddings)
        between = (squared_distances if self.squared else distances)(anchors, others)
        # (P, M): each positive pair, with all references as the negative
        rows, columns = references.positive.nonzero().unbind(1)
        farther = between[rows] - between[rows, columns][:, None]
        counts = references.negative[rows] & (farther < self.margin)
        if self.mining != "all":
            counts &= farther > 0 if self.mining == "semihard" else farther <= 0
        return ((self.margin - farther) * counts).sum() / counts.sum().clamp(min=1)
