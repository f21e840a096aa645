"""Ranked List Loss for Deep Metric Learning.

Wang, Hua, Kodirov, Hu, Garnier, Robertson; CVPR 2019, and TPAMI 2021 (Wang, Hua, Kodirov,
Robertson); arXiv 1903.03238. Each embedding is a query: positives beyond the radius alpha - m are
pulled in, negatives within the radius alpha are pushed out, the nearest most.

Defaults: the paper's SOP setting (m = 0.4, T = 10, lambda = 1), with alpha = 1 + m/2 as in
RLL-Simpler of the TPAMI paper, which is the CVPR paper's 1.2.

Differs: the arithmetic is the papers', where the authors' code departs from them: pair gradients
of unit length (not of the length of the distance), and a plain mean over queries (not one that
follows their summed weights).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from dmlbench.losses.base import Loss, distances, pair_masks, unit_length

LEAST = {"margin": 0, "negative_temperature": 0, "positive_temperature": 0}
SEARCH_SPACE = {
    "margin": {"low": 0.1, "high": 1.0},
    "negative_temperature": {"low": 1.0, "high": 20.0},
}


class RankedList(Loss):
    """Ranked list loss: form "cvpr" is L_P + la L_N, "tpami" is (1 - la) L_P + la L_N.

    `alpha` None is 1 + margin/2; `la` None is the form's own, 1 or 0.5. Only the query learns
    from a pair unless `gallery_grad`; pair weights are constants unless `weight_grad`.
    """

    BY_DESIGN: ClassVar = {
        "gradient": "only the query learns from a pair, and the pairs' weights are constants"
    }

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        margin: float = 0.4,
        alpha: float | None = None,
        negative_temperature: float = 10.0,
        positive_temperature: float = 0.0,
        form: Literal["cvpr", "tpami"] = "cvpr",
        la: float | None = None,
        gallery_grad: bool = False,
        weight_grad: bool = False,
    ) -> None:
        super().__init__()
        self.outer = 1 + margin / 2 if alpha is None else alpha
        self.inner = self.outer - margin
        self.negative_temperature = negative_temperature
        self.positive_temperature = positive_temperature
        own = 1.0 if form == "cvpr" else 0.5
        self.negative_share = own if la is None else la
        self.positive_share = 1.0 if form == "cvpr" else 1 - self.negative_share
        self.gallery_grad = gallery_grad
        self.weight_grad = weight_grad

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        query = unit_length(embeddings)
        distance = distances(query, query if self.gallery_grad else query.detach())
        positive, negative = pair_masks(labels)
        pull = self._part(distance - self.inner, positive, self.positive_temperature)
        push = self._part(self.outer - distance, negative, self.negative_temperature)
        return (self.positive_share * pull + self.negative_share * push).mean()

    def _part(self, violation: Tensor, pairs: Tensor, temperature: float) -> Tensor:
        """Weighted mean (N,) of each query's violations above 0 among `pairs`; 0 without any."""
        active = pairs & (violation > 0)
        exponents = temperature * (violation if self.weight_grad else violation.detach())
        # a softmax, as exp(T x) overflows; its finite floor keeps an empty row free of NaN
        floor = torch.finfo(exponents.dtype).min
        weights = exponents.masked_fill(~active, floor).softmax(dim=1)
        return (weights * active * violation).sum(dim=1)
