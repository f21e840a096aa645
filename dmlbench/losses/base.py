"""What every loss is, and the arithmetic that several of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Embed = Callable[[], tuple[Tensor, Tensor]]


class Loss(nn.Module):
    """A loss on a batch of embeddings. Subclasses write `compute`, and what else they need.

    An option is a keyword-only argument of `__init__` with a literal default. Initial parameters
    are drawn from torch's global generator.
    """

    BY_DESIGN: ClassVar[dict[str, str]] = {}
    """What `dmlbench check` faults and is meant so: name of the check -> the reason."""

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of `embeddings` (N, D), of any length, with `labels` (N,) in [0, C).

        The arithmetic is float32 whatever autocast says, and float64 if the embeddings are.
        """
        if embeddings.dtype != torch.float64:
            embeddings = embeddings.float()
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.compute(embeddings, labels)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Optimiser groups of the loss's own parameters, `lr` being the backbone's rate."""
        return []

    def refresh(self, embed: Embed) -> Iterable[nn.Parameter]:
        """Called before each epoch. `embed()` gives the training set's embeddings (M, D) at unit
        length, by the test transform, and its labels (M,); it costs a pass over the images.

        Returns the parameters that were set anew, whose optimiser state no longer applies.
        """
        return ()

    def batches(
        self, labels: NDArray[Any], steps: int, batch_size: int, seed: int, epoch: int
    ) -> NDArray[Any] | None:
        """Rows of the training set (steps, batch_size) for an epoch; None: the recipe's sampler."""
        return None

    def statistics(self) -> dict[str, float]:
        """What is worth a look after an epoch."""
        return {}

    def artefact(self) -> dict[str, Any]:
        """What it has learnt beside its parameters, after the last step: kept with the run, as
        JSON. `merges`, the rows of scipy's linkage of the C classes, are drawn as a tree where the
        file says GIVES_TREE = True, over the lines of `thresholds`."""
        return {}


def unit_length(vectors: Tensor) -> Tensor:
    """Vectors (..., D) at Euclidean length 1; one below 1e-12 becomes 0, with gradient 0."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / torch.where(length > 1e-12, length, torch.inf)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances (N, M), in [0, 4] up to rounding, of unit vectors."""
    return 2 - 2 * (a @ b.T)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (N, M) of unit vectors; 0 with gradient 0 where they coincide."""
    squared = squared_distances(a, b)
    # what rounding leaves of 2 - 2 cos at equal vectors would get a gradient of 1/sqrt(rounding)
    coincide = squared <= 16 * torch.finfo(squared.dtype).eps
    return torch.where(coincide, 0, torch.where(coincide, 1, squared).sqrt())


def pair_masks(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Positive and negative pairs (N, N): same class at another row of the batch, other class."""
    same = labels[:, None] == labels
    return same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), ~same


def class_mask(labels: Tensor, num_classes: int) -> Tensor:
    """Whether row n is of class c, (N, C)."""
    return labels[:, None] == torch.arange(num_classes, device=labels.device)
