"""Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning.

Wang, Han, Huang, Dong, Scott; CVPR 2019; arXiv 1904.06627. Informative pairs are mined, and
weighted by their similarity and by that of the anchor's other pairs.

Defaults: the paper's (alpha 2, beta 50, lambda 0.5 as in the authors' code, epsilon 0.1).

Family: pairs.

Differs: the authors' code has beta 40, and leaves out positives with a cosine of 1.
"""

from __future__ import annotations

import torch
from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner
from torch import Tensor

from dmlbench.losses._memory import References, create_memory
from dmlbench.losses._pml import PmlLoss
from dmlbench.losses.base import unit_length

LEAST = {"memory": 2, "memory_start": 0}
MOST = {"alpha": 10000, "beta": 10000, "la": 1000, "epsilon": 1000}
LEAST_IMAGES_PER_CLASS = 2
HOLDS_BATCH = ("memory",)
SEARCH_SPACE = {
    "alpha": {"low": 0.5, "high": 20.0, "log": True},
    "beta": {"low": 10.0, "high": 100.0, "log": True},
    "la": {"low": 0.0, "high": 1.0},
    "epsilon": {"low": 0.01, "high": 0.5, "log": True},
}


class MultiSimilarity(PmlLoss):
    """Multi-similarity loss, equation 15 of the paper, on the pairs that its miner keeps.

    `la` is lambda, the cosine that both exponentials are centred on; `epsilon` is the miner's
    margin. With `memory`, the same for the batch and that many embeddings of batches before it is
    added (XBM; Wang et al., CVPR 2020), from the batch after `memory_start` on.

    Raises:
        ValueError: a `memory_start` without `memory`.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        alpha: float = 2.0,
        beta: float = 50.0,
        la: float = 0.5,
        epsilon: float = 0.1,
        memory: int | None = None,
        memory_start: int = 1000,
    ) -> None:
        super().__init__(
            MultiSimilarityLoss(alpha, beta, la),
            MultiSimilarityMiner(epsilon),
            memory=create_memory(memory, memory_start, embedding_dim),
        )
        self.epsilon = epsilon

    def mine_pairs(self, embeddings: Tensor, references: References) -> tuple[Tensor, Tensor]:
        """Equations 9 and 10 of the paper: a negative that is nearer than the farthest positive,
        and a positive that is farther than the nearest negative, each up to `epsilon`."""
        _, positive, negative = references
        cosine = unit_length(embeddings.detach()) @ unit_length(references.embeddings).T
        farthest_positive = cosine.masked_fill(~positive, torch.inf).amin(dim=1, keepdim=True)
        nearest_negative = cosine.masked_fill(~negative, -torch.inf).amax(dim=1, keepdim=True)
        return (
            positive & (cosine - self.epsilon < nearest_negative),
            negative & (cosine + self.epsilon > farthest_positive),
        )
