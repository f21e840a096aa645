"""Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning.

Wang, Han, Huang, Dong, Scott; CVPR 2019; arXiv 1904.06627. Informative pairs are mined, and
weighted by their similarity and by that of the anchor's other pairs.

Defaults: the paper's (alpha 2, beta 50, lambda 0.5 as in the authors' code, epsilon 0.1).

Family: pairs.

Differs: the authors' code has beta 40, and leaves out positives with a cosine of 1.
"""

from __future__ import annotations

from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner
from torch import Tensor

from dmlbench.losses._pml import PmlLoss

MOST = {"alpha": 10000, "beta": 10000, "la": 1000, "epsilon": 1000}
LEAST_IMAGES_PER_CLASS = 2
SEARCH_SPACE = {
    "alpha": {"low": 0.5, "high": 20.0, "log": True},
    "beta": {"low": 10.0, "high": 100.0, "log": True},
    "la": {"low": 0.0, "high": 1.0},
    "epsilon": {"low": 0.01, "high": 0.5, "log": True},
}


class MultiSimilarity(PmlLoss):
    """Multi-similarity loss, equation 15 of the paper, on the pairs that its miner keeps.

    `la` is lambda, the cosine that both exponentials are centred on; `epsilon` is the miner's
    margin.
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
    ) -> None:
        super().__init__(MultiSimilarityLoss(alpha, beta, la), MultiSimilarityMiner(epsilon))
