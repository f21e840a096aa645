"""Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval.

Brown, Xie, Kalogeiton, Zisserman; ECCV 2020; arXiv 2007.12163. One less the average precision of
each image's ranking of the batch, its ranks made smooth by a sigmoid.

Defaults: the paper's temperature (0.01). Large batches are what it is made for; its memory grows
with the cube of their size.

Not by pytorch-metric-learning, whose 2.9 ranks positives in wrong groups unless a batch holds as
many classes as images of each.

Differs: the same values as the authors' code, without its need of batches that are sorted by class
and hold equally many images of each; an image without positives has next to no loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dmlbench.losses.base import Loss, unit_length

ABOVE = {"temperature": 0}
SEARCH_SPACE = {"temperature": {"low": 0.002, "high": 0.2, "log": True}}


class SmoothAP(Loss):
    """Mean over queries of 1 - smoothed AP; as in the authors' code a query is its own positive."""

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
