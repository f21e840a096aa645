"""Deep Metric Learning with Angular Loss.

Wang, Zhou, Wen, Liu, Lin; ICCV 2017; arXiv 1708.01682. Bounds the angle at the negative of the
triangle that it makes with an anchor and its positive.

Defaults: pytorch-metric-learning's angle of 40 degrees; 45 is as common.

Family: pairs.

Differs: the angular term alone, without the N-pair loss that the paper adds to it; on all positive
pairs of the batch; negatives have unit length too (the library does not normalise them).
"""

from __future__ import annotations

from pytorch_metric_learning.losses import AngularLoss
from torch import Tensor

from dmlbench.losses._pml import PmlLoss
from dmlbench.losses.base import unit_length

ABOVE = {"alpha": 0}
MOST = {"alpha": 89}
LEAST_IMAGES_PER_CLASS = 2
SEARCH_SPACE = {"alpha": {"low": 30.0, "high": 55.0}}


class Angular(PmlLoss):
    """Angular loss in its log-sum-exp form. `alpha` is the largest angle, in degrees."""

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        alpha: float = 40.0,
    ) -> None:
        super().__init__(AngularLoss(alpha))

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return super().compute(unit_length(embeddings), labels)
