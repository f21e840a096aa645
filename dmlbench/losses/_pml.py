"""Losses of pytorch-metric-learning (Musgrave, Belongie, Lim) under our contract.

They normalise the embeddings themselves, and synchronise with the host as they mine.
"""

from __future__ import annotations

from torch import Tensor, nn

from dmlbench.losses.base import Loss


class PmlLoss(Loss):
    """A criterion of pytorch-metric-learning, on what a miner of it picks from the batch."""

    def __init__(self, criterion: nn.Module, miner: nn.Module) -> None:
        super().__init__()
        self.criterion = criterion
        self.miner = miner

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return self.criterion(embeddings, labels, self.miner(embeddings, labels))
