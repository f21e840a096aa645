"""A memory of the embeddings of earlier batches, for losses that compare pairs of images.

Cross-Batch Memory for Embedding Learning: Wang, Zhang, Huang, Scott; CVPR 2020; arXiv 1912.06798.
Embeddings drift slowly, so those of earlier batches serve as further references: the loss is that
of the batch, and that of the batch against the memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

START = 1000
"""Batches before the memory is used, as in the authors' sample configuration
(msight-tech/research-xbm)."""


class References(NamedTuple):
    """Embeddings that those of a batch are compared with."""

    embeddings: Tensor
    """(M, D), of any length, without gradient."""
    positive: Tensor
    """Whether anchor n and reference m are a positive pair: bool (N, M)."""
    negative: Tensor
    """The same for a negative pair."""


class CrossBatchMemory(nn.Module):
    """A queue of embeddings and labels: the newest take the places of the oldest.

    A batch enters the queue before it is compared with it, as in algorithm 1 of the paper. An image
    and its own embedding in the queue are no pair. In evaluation mode nothing enters.

    The numbers of batches and of embeddings are on the host, so nothing waits for a GPU. All of the
    state is in `state_dict()`.

    Args:
        size: most embeddings in the queue. It must hold a batch.
        start: this many batches come before the queue is used, since embeddings drift fast at
            first; they do not enter it.
        embedding_dim: D.

    >>> memory = CrossBatchMemory(size=3, start=0, embedding_dim=1)
    >>> labels = torch.tensor([0, 1])
    >>> memory(torch.tensor([[1.0], [2.0]]), labels).positive.tolist()  # only itself
    [[False, False], [False, False]]
    >>> references = memory(torch.tensor([[3.0], [4.0]]), labels)
    >>> references.embeddings.tolist(), references.positive.tolist()
    ([[4.0], [2.0], [3.0]], [[False, False, False], [False, True, False]])
    """

    embeddings: Tensor
    labels: Tensor

    def __init__(self, size: int, start: int, embedding_dim: int) -> None:
        super().__init__()
        self.size, self.start = size, start
        self.register_buffer("embeddings", torch.zeros(size, embedding_dim))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
        self.batches = 0
        """Batches that were seen."""
        self.entered = 0
        """Embeddings that have entered the queue, those that have left it included."""

    def __len__(self) -> int:
        return min(self.entered, self.size)

    def get_extra_state(self) -> dict[str, int]:
        return {"batches": self.batches, "entered": self.entered}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.batches, self.entered = state["batches"], state["entered"]

    def forward(self, embeddings: Tensor, labels: Tensor) -> References | None:
        """Take in a batch, and give what its embeddings are compared with.

        Args:
            embeddings: (N, D).
            labels: (N,).

        Returns:
            the references; None before the start, and in evaluation mode.

        Raises:
            ValueError: the queue does not hold a batch.
        """
        if not self.training:
            return None
        self.batches += 1
        if self.batches <= self.start:
            return None
        count = len(labels)
        if count > self.size:
            raise ValueError(
                f"memory: {self.size} embeddings do not hold a batch of {count}. Take memory: "
                f"{count} or more"
            )
        first = self.entered % self.size
        for queue, batch in ((self.embeddings, embeddings.detach()), (self.labels, labels)):
            until_end = min(count, self.size - first)
            queue[first : first + until_end] = batch[:until_end]
            queue[: count - until_end] = batch[until_end:]
        self.entered += count
        places = torch.arange(len(self), device=labels.device)
        own = (first + places[:count]) % self.size
        same = labels[:, None] == self.labels[: len(self)]
        return References(
            self.embeddings[: len(self)].to(embeddings.dtype),
            same & (own[:, None] != places),
            ~same,
        )


def create_memory(size: int | None, start: int, embedding_dim: int) -> CrossBatchMemory | None:
    """The memory that the options `memory` and `memory_start` of a loss ask for; None without one.

    Raises:
        ValueError: there is a start and no memory.
    """
    if size is None and start != START:
        raise ValueError(f"memory_start: {start} is not used without memory. Leave it out")
    return None if size is None else CrossBatchMemory(size, start, embedding_dim)


def memory_statistics(memory: CrossBatchMemory | None) -> dict[str, Any]:
    """What `Loss.statistics` records of a memory: the embeddings that it holds."""
    return {} if memory is None else {"memory": len(memory)}
