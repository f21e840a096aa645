"""Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval.

Brown, Xie, Kalogeiton, Zisserman; ECCV 2020; arXiv 2007.12163. 1 - average precision of each
image's ranking of the batch. Sigmoids make the ranks smooth.

Defaults: the paper's temperature (0.01). It is made for large batches; its memory grows with the
cube of their size.

It does not wrap pytorch-metric-learning: version 2.9 ranks positives in wrong groups unless a batch
holds as many classes as images of each.

Family: ranking.

Differs: the values of the authors' code, but batches need not be sorted by class, nor hold equally
many images of each. An image without positives has almost no loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dmlbench.losses.base import Loss, unit_length

LEAST = {"temperature": 1e-6}
LEAST_IMAGES_PER_CLASS = 2
SEARCH_SPACE = {"temperature": {"low": 0.002, "high": 0.2, "log": True}}


class SmoothAP(Loss):
    """Mean over queries of 1 - smooth AP. As in the authors' code, a query is its own positive."""

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        temperature: float = 0.01,
    ) -> None:
        super().__init__()
        self.temperature = temperature

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        unit = unit_length(embeddings)
        similarity = unit @ unit.T
        same = (labels[:, None] == labels).to(similarity.dtype)
        # ahead[i, j, k]: how surely query i ranks k ahead of j
        ahead = ((similarity[:, None, :] - similarity[:, :, None]) / self.temperature).sigmoid()
        ahead = ahead * (1 - torch.eye(len(labels), dtype=ahead.dtype, device=ahead.device))
        rank = 1 + ahead.sum(dim=2)
        rank_among_positives = 1 + (ahead * same[:, None, :]).sum(dim=2)
        precision = (same * rank_among_positives / rank).sum(dim=1) / same.sum(dim=1)
        return (1 - precision).mean()
