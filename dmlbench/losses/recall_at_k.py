"""Recall@k Surrogate Loss with Large Batches and Similarity Mixup.

Patel, Tolias, Matas; CVPR 2022; arXiv 2108.11179. 1 - recall@k of each image's ranking of the
batch, for several k. Sigmoids make the ranks smooth, and the step at rank k.

Defaults: the authors' code (yash0307/RecallatK_surrogate): temperatures 0.01 of ranks and 1 of
lists, k = 1, 2, 4, 8, 16. It is made for large batches (4,000 images, 4 of a class), which
`recipe.chunk` computes in parts as the paper does; the memory of the loss itself grows with batch
size squared x `positives`.

Family: ranking.

Differs: the paper's similarity mixup (SiMix) is an option, `mixup`, and off by default. A query is
not in its own ranking (in the authors' code it is ahead of its positives). As in the authors' code,
recall at k is divided by k if there are more than k positives, so that it can reach 1, and a k
above the batch size is the batch size. The temperature of lists is one for all k; the authors' last
code has k itself. Batches need not be sorted by class, nor hold equally many images of each class.
Images without positives are not queries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dmlbench.losses.base import Loss, pair_masks, unit_length

LEAST = {"largest_k": 1, "positives": 1, "temperature": 1e-6, "list_temperature": 1e-6}
MOST = {"positives": 10000}
LEAST_IMAGES_PER_CLASS = 2
BELOW_BATCH_SIZE = ("largest_k",)
SEARCH_SPACE = {
    "temperature": {"low": 0.002, "high": 0.2, "log": True},
    "list_temperature": {"low": 0.2, "high": 5.0, "log": True},
}


class RecallAtK(Loss):
    """1 - smooth recall@k, mean over k = 1, 2, 4, ... up to `largest_k` and over queries.

    In a batch of N images, each k is at most N.

    s are cosines. The smooth rank of a positive x of query q is 1 + the sum of
    sigmoid((s_qz - s_qx) / `temperature`) over all images z except q and x. Recall@k is the sum of
    sigmoid((k - rank) / `list_temperature`) over x, at most k, divided by k or by the number of
    positives, whichever is less. Only the nearest `positives` of a query are ranked: at least that
    many images are ahead of any other positive.

    With `mixup`, each two images a and b of a class have a virtual image in the batch, of their
    class, with the similarities u s_a + (1 - u) s_b to all images: SiMix. It is a query, a positive
    and a negative as the others are. u is uniform in [0, 1), drawn by torch's global generator for
    each pair and batch; in evaluation mode there is none. The host waits once for a GPU, as the
    number of pairs follows from the labels.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        temperature: float = 0.01,
        list_temperature: float = 1.0,
        largest_k: int = 16,
        positives: int = 16,
        mixup: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.list_temperature = list_temperature
        self.lengths = largest_k.bit_length()
        self.positives = positives
        self.mixup = mixup

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        unit = unit_length(embeddings)
        if self.mixup and self.training:
            unit, labels = with_mixtures(unit, labels)
        similarity = unit @ unit.T
        positive, negative = pair_masks(labels)
        # P candidates of each query, (N, P): its nearest positives, then others to fill the rows
        candidates = min(self.positives, len(labels))
        nearest = similarity.detach().masked_fill(~positive, -2).topk(candidates, dim=1).indices
        ranked = positive.gather(1, nearest)
        # Not `gather`: in older torch, its deterministic backward pass waits for the GPU
        rows = torch.arange(len(labels), device=labels.device)[:, None]
        ranked_similarity = similarity[rows, nearest]
        others = similarity.masked_fill(~(positive | negative), -torch.inf)
        difference = others[:, None, :] - ranked_similarity[:, :, None]
        ahead = (difference / self.temperature).sigmoid()
        rank = 0.5 + ahead.sum(dim=2)  # the sum holds sigmoid(0) of the positive itself
        k = (2 ** torch.arange(self.lengths, device=rank.device)).clamp(max=len(labels))
        listed = ((k - rank[:, :, None]) / self.list_temperature).sigmoid() * ranked[:, :, None]
        count = positive.sum(dim=1)[:, None]
        # More than k images can tie at rank k, and the smooth list would hold them all
        retrieved = torch.minimum(listed.sum(dim=1), k)
        recall = (retrieved / torch.minimum(k, count).clamp(min=1)).mean(dim=1)
        queries = positive.any(dim=1)
        return ((1 - recall) * queries).sum() / queries.sum().clamp(min=1)


def with_mixtures(unit: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A batch with a random mixture of each two images of a class behind it.

    Mixtures are shorter than 1, so that their inner products are mixtures of similarities.

    Args:
        unit: embeddings (N, D) at unit length.
        labels: (N,).
    """
    positive, _ = pair_masks(labels)
    first, second = positive.triu().nonzero().unbind(1)
    share = torch.rand(len(first), 1, dtype=unit.dtype, device=unit.device)
    mixtures = share * unit[first] + (1 - share) * unit[second]
    return torch.cat([unit, mixtures]), torch.cat([labels, labels[first]])
