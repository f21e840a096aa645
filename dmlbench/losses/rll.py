"""Ranked List Loss for Deep Metric Learning.

Wang, Hua, Kodirov, Hu, Garnier, Robertson; CVPR 2019, and TPAMI 2021 (Wang, Hua, Kodirov,
Robertson); arXiv 1903.03238. Each embedding is a query. Positives beyond the radius alpha - m are
pulled in; negatives within the radius alpha are pushed out, the nearest ones most.

Its forms: "cvpr", L_P + lambda L_N; "tpami", (1 - lambda) L_P + lambda L_N; "simpler", the TPAMI
paper's RLL-Simpler, which has only m and T_n: alpha is 1 + m/2, and all positives have the same
weight. RLL-(L,M,H) is `blocks: 3` on a backbone whose embedding joins three embeddings; RLL-H is
one block.

Defaults: the paper's SOP setting (m = 0.4, T = 10, lambda = 1), with alpha = 1 + m/2 as in
RLL-Simpler, which is the CVPR paper's 1.2.

Family: ranking.

Differs: not from the papers. The authors' code departs from them: its arithmetic is form "tpami"
with `anchor_weighting: official` (the weight of a query is the sum of its pairs' raw weights), and
in 2019 also with `pair_gradient: distance` (the gradient of a pair is as long as its distance, not
1). Measured on random clusters in batches of 60 and 180 images, the gradient of `anchor_weighting:
uniform` has a cosine to that of the authors' code of 0.86 or more in 512 dimensions (median 0.94 or
more), but down to 0.62 in 64 and 0.45 in 16.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from dmlbench.losses._memory import create_memory, memory_statistics
from dmlbench.losses.base import Loss, distances, pair_masks, unit_length

LEAST = {
    "margin": 0,
    "negative_temperature": 0,
    "positive_temperature": 0,
    "la": 0,
    "blocks": 1,
    "memory": 2,
    "memory_start": 0,
}
ABOVE = {"alpha": 0}
MOST = {"margin": 1000, "alpha": 1000, "negative_temperature": 10000, "positive_temperature": 10000}
DIM_DIVISORS = ("blocks",)
LEAST_IMAGES_PER_CLASS = 2
HOLDS_BATCH = ("memory",)
SEARCH_SPACE = {
    "margin": {"low": 0.1, "high": 1.0},
    "negative_temperature": {"low": 1.0, "high": 20.0},
}


class RankedList(Loss):
    """Ranked list loss in the forms of its papers.

    In the CVPR paper, equation 8 is the hinge of a pair, 9 the weights, 11 and 12 are L_P and L_N,
    and 13 is their sum.

    `alpha` None means 1 + margin/2. `la` is lambda; None means 1 in form "cvpr", else 0.5. Only the
    query learns from a pair, unless `gallery_grad`. Weights are constants, unless `weight_grad`.

    `pair_gradient` "unit" is a hinge on the distance d, as in the papers; "distance" is one on
    d^2 / 2, whose gradient is the difference of the two embeddings. `anchor_weighting` "uniform"
    takes the mean over queries. "official" weighs a query by the sum of exp(T violation) over its
    active pairs, as a share of the sum over all queries.

    The embedding is cut into `blocks` equal parts. Each is set to unit length and has its own loss;
    the losses are added.

    With `memory`, the same for queries of the batch and a gallery of that many embeddings of
    batches before it is added (XBM; Wang et al., CVPR 2020), from the batch after `memory_start`
    on.

    Raises:
        ValueError: the dimension is no multiple of `blocks`; the margin is above alpha; form
            "simpler" with an alpha, lambda or positive temperature; form "tpami" with a lambda
            above 1; a `memory_start` without `memory`.
    """

    BY_DESIGN: ClassVar = {
        "gradient": "only the query learns from a pair, and the pairs' weights are constants "
        "(unless gallery_grad and weight_grad)"
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
        form: Literal["cvpr", "tpami", "simpler"] = "cvpr",
        la: float | None = None,
        pair_gradient: Literal["unit", "distance"] = "unit",
        anchor_weighting: Literal["uniform", "official"] = "uniform",
        gallery_grad: bool = False,
        weight_grad: bool = False,
        blocks: int = 1,
        memory: int | None = None,
        memory_start: int = 1000,
    ) -> None:
        super().__init__()
        if form == "simpler" and (alpha, la, positive_temperature) != (None, None, 0):
            raise ValueError("form 'simpler' has no alpha, la and positive_temperature to set")
        if form == "tpami" and la is not None and la > 1:
            raise ValueError(f"la {la} is above 1: form 'tpami' weighs positives by 1 - la")
        if embedding_dim % blocks:
            raise ValueError(f"blocks {blocks} does not divide the dimension {embedding_dim}")
        self.outer = 1 + margin / 2 if alpha is None else alpha
        self.inner = self.outer - margin
        if self.inner < 0:
            raise ValueError(f"margin {margin} is above alpha {self.outer}")
        self.negative_temperature = negative_temperature
        self.positive_temperature = positive_temperature
        default_share = 1.0 if form == "cvpr" else 0.5
        self.negative_share = default_share if la is None else la
        self.positive_share = 1.0 if form == "cvpr" else 1 - self.negative_share
        self.pair_gradient = pair_gradient
        self.anchor_weighting = anchor_weighting
        self.gallery_grad = gallery_grad
        self.weight_grad = weight_grad
        self.blocks = blocks
        self.memory = create_memory(memory, memory_start, embedding_dim)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        query = self._blocks_of(embeddings)
        gallery = query if self.gallery_grad else query.detach()
        value = self._loss(query, gallery, *pair_masks(labels))
        references = None if self.memory is None else self.memory(embeddings, labels)
        if references is None:
            return value
        gallery = self._blocks_of(references.embeddings)
        return value + self._loss(query, gallery, references.positive, references.negative)

    def statistics(self) -> dict[str, float]:
        return memory_statistics(self.memory)

    def _blocks_of(self, embeddings: Tensor) -> Tensor:
        """The blocks (N, blocks, D / blocks) of embeddings, each at unit length."""
        return unit_length(embeddings.unflatten(1, (self.blocks, -1)))

    def _loss(self, query: Tensor, gallery: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        pairs = zip(query.unbind(1), gallery.unbind(1), strict=True)
        return torch.stack([self._block_loss(q, g, positive, negative) for q, g in pairs]).sum()

    def _block_loss(
        self, query: Tensor, gallery: Tensor, positive: Tensor, negative: Tensor
    ) -> Tensor:
        distance = distances(query, gallery)
        pull, pull_weight = self._mean_violation(
            distance, positive, 1, self.inner, self.positive_temperature
        )
        push, push_weight = self._mean_violation(
            distance, negative, -1, self.outer, self.negative_temperature
        )
        value = self.positive_share * pull + self.negative_share * push
        if self.anchor_weighting == "uniform":
            return value.mean()
        return (torch.logaddexp(pull_weight, push_weight).softmax(dim=0) * value).sum()

    def _mean_violation(
        self, distance: Tensor, pairs: Tensor, sign: int, radius: float, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """The mean violation of each query, and its weight.

        Returns:
            the weighted mean (N,) of the violations above 0 among `pairs`, 0 without any; and the
            logarithm (N,) of the sum of their raw weights.
        """
        violation = sign * (distance - radius)
        active = pairs & (violation > 0)
        exponents = temperature * (violation if self.weight_grad else violation.detach())
        # A softmax, since exp(T x) overflows; its finite floor keeps NaN out of an empty row
        exponents = exponents.masked_fill(~active, torch.finfo(exponents.dtype).min)
        if self.pair_gradient == "distance":
            violation = sign * (distance.square() - radius**2) / 2
        mean = (exponents.softmax(dim=1) * active * violation).sum(dim=1)
        return mean, exponents.logsumexp(dim=1)
