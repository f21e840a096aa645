"""Recall@k Surrogate Loss with Large Batches and Similarity Mixup.

Patel, Tolias, Matas; CVPR 2022; arXiv 2108.11179. One less the recall of each image's ranking of
the batch, at several lengths k of the list; ranks, and being among the first k, are made smooth by
sigmoids.

Defaults: the authors' code (yash0307/RecallatK_surrogate): temperatures 0.01 of ranks and 1 of
lists, k = 1, 2, 4, 8, 16. Large batches are what it is made for (4,000 images, 4 of a class);
memory is batch size squared x `positives`.

Differs: the paper's similarity mixup (SiMix), and its two passes that compute a batch of 4,000 in
parts, are not here: a batch is what the recipe gives. A query is no part of its own ranking (in the
authors' code it is ahead of its positives); recall at k is divided by k where there are more
positives, as in the authors' code, so that it can reach 1. Batches need not be sorted nor hold
equally many images of each class; images without positives are no queries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dmlbench.losses.base import Loss, pair_masks, unit_length

LEAST = {"largest_k": 1, "positives": 1}
ABOVE = {"temperature": 0, "list_temperature": 0}
SEARCH_SPACE = {
    "temperature": {"low": 0.002, "high": 0.2, "log": True},
    "list_temperature": {"low": 0.2, "high": 5.0, "log": True},
}


class RecallAtK(Loss):
    """1 - smooth recall@k, mean over k = 1, 2, 4, ... up to `largest_k` and over queries.

    The smooth rank of a positive x of query q is 1 + the sum over all other images z but q of
    sigmoid((s_qz - s_qx) / `temperature`), s being cosines. Recall@k is the sum over x of
    sigmoid((k - rank) / `list_temperature`), divided by k or the number of positives, whichever is
    less. Of many positives the nearest `positives` are ranked: others are behind at least so many.
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
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.list_temperature = list_temperature
        self.lists = largest_k.bit_length()
        self.positives = positives

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        unit = unit_length(embeddings)
        similarity = unit @ unit.T
        positive, negative = pair_masks(labels)
        # a place for each positive that may be ranked, (N, P): as many for each query
        places = min(self.positives, len(labels))
        near = similarity.detach().masked_fill(~positive, -2).topk(places, dim=1).indices
        ranked = positive.gather(1, near)
        mine = similarity.gather(1, near)
        others = similarity.masked_fill(~(positive | negative), -torch.inf)
        ahead = ((others[:, None, :] - mine[:, :, None]) / self.temperature).sigmoid()
        rank = 0.5 + ahead.sum(dim=2)  # as its own half is in the sum
        k = 2 ** torch.arange(self.lists, device=rank.device)
        listed = ((k - rank[:, :, None]) / self.list_temperature).sigmoid() * ranked[:, :, None]
        count = positive.sum(dim=1)[:, None]
        # a smooth list has room for more than k images that tie
        found = torch.minimum(listed.sum(dim=1), k)
        recall = (found / torch.minimum(k, count).clamp(min=1)).mean(dim=1)
        queries = positive.any(dim=1)
        return ((1 - recall) * queries).sum() / queries.sum().clamp(min=1)
