"""The base class of losses, and the arithmetic that several of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Self

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dmlbench.losses._usage import PREPARATION, Usage, note_calls

Embed = Callable[[], tuple[Tensor, Tensor]]
"""Gives embeddings (M, D) of the training set, and their labels (M,)."""


class Loss(nn.Module):
    """The base class of every loss: what a loss must implement, and what it may implement.

    A loss of this package is the only public class of a file `dmlbench/losses/<name>.py`. Your own
    class is named in a study by its import path. `dmlbench check` tests either.

    A loss must implement

    - `__init__(self, num_classes, embedding_dim, parents=None, *, ...)`: see `create_loss` for the
      first three. The arguments after the star are the loss's options. A study reads them from the
      source, so each has a literal default and an annotation of float, int, bool, str, Literal, or
      a union of these with None. Draw initial parameters from torch's global generator. Raise
      ValueError for options that do not fit each other.
    - `compute(embeddings, labels)`: the loss of a batch.

    A loss may implement

    - `param_groups(lr)`, if it has parameters: their learning rates.
    - `refresh(embed)`: prepare the next epoch.
    - `batches(labels, steps, batch_size, seed, epoch)`: choose the images of each batch.
    - `statistics()`: numbers to record after each epoch.
    - `artefact()`: what it has learnt besides its parameters.

    Keep everything that changes during training in parameters and buffers: an interrupted training
    gets back the `state_dict()`, and nothing else.

    A file of this package may also declare constants, as literals:

    - `LEAST = {"margin": 0}`: the smallest value that an option may have.
    - `ABOVE = {"scale": 0}`: a value that an option must exceed.
    - `MOST = {"centers_per_class": 1000}`: the largest value that an option may have.
    - `SEARCH_SPACE = {"margin": {"low": 0.1, "high": 1.0, "log": True}}`: the range of an option in
      a search.
    - `BATCH_DIVISORS`, `DIM_DIVISORS`: tuples of options. Their product must divide the batch size,
      or the dimension of the embedding.
    - `LEAST_IMAGES_PER_CLASS = 2`: images of a class that a batch must hold.
    - `BELOW_IMAGES_PER_CLASS`, `BELOW_BATCH_SIZE`: tuples of options that must be less than the
      images of a class in a batch, or than the batch.
    - `HOLDS_BATCH`: options that must be the images of a batch or more, or None.
    - `ONLY_WITH = {"alpha": {"base": ("proxy_anchor",)}}`: an option that is used only with these
      values of another one.
    - `POINCARE_BALL = ("curvature", "radius")`: the options with the curvature and the clipping
      radius of a Poincaré ball in which the embeddings are compared by their distance, and not by
      cosine.
    - `GIVES_TREE = True`: the leaderboard draws the tree in `artefact`. Your own file may say this
      too.

    >>> class Contrastive(Loss):
    ...     def __init__(self, num_classes, embedding_dim, parents=None, *, margin: float = 0.5):
    ...         super().__init__()
    ...         self.margin = margin
    ...
    ...     def compute(self, embeddings, labels):
    ...         unit = unit_length(embeddings)
    ...         distance = distances(unit, unit)
    ...         positive, negative = pair_masks(labels)
    ...         pull = (distance * positive).sum() / positive.sum().clamp(min=1)
    ...         push = ((self.margin - distance).relu() * negative).sum()
    ...         return pull + push / negative.sum().clamp(min=1)
    >>> loss = Contrastive(num_classes=2, embedding_dim=2)
    >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 5.0]])
    >>> round(loss(embeddings, torch.tensor([0, 1, 0])).item(), 4)
    1.6642
    >>> loss
    Contrastive(num_classes=2, embedding_dim=2, margin=0.5)
    """

    BY_DESIGN: ClassVar[dict[str, str]] = {}
    """Checks of `dmlbench check` that the loss fails on purpose: name of the check -> the reason.
    Allowed are gradient, order, numbering, length, growth, repeats, random, refresh and host."""

    _usage: Usage

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        loss = super().__new__(cls)
        loss._usage = Usage(cls, arguments, options)
        return loss

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in PREPARATION:
            if (method := getattr(cls, name)) is not getattr(Loss, name):
                setattr(cls, name, note_calls(method))

    def __repr__(self) -> str:
        return str(self._usage)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch, by `compute`. Do not override it.

        It computes in float32, whatever autocast says; in float64 if the embeddings are float64.

        Args:
            embeddings: (N, D), of any length and any floating-point type.
            labels: class of each embedding, (N,), int64 in [0, C).

        Returns:
            one number, of shape ().

        Raises:
            InvalidArgument: the shapes or types are others, or a label is out of the range. On a
                GPU, only the first batch is checked so; after it, a wrong label is an assertion of
                CUDA.
        """
        if not torch.compiler.is_compiling():
            self._usage.check(embeddings, labels)
        if embeddings.dtype != torch.float64:
            embeddings = embeddings.float()
        if not torch.is_autocast_enabled(embeddings.device.type):
            return self.compute(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.compute(embeddings, labels)

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of `embeddings` (N, D), float32 or float64, with `labels` (N,): one number.

        Embeddings have any length: use `unit_length`. Own parameters follow the embeddings by
        `.to(embeddings.dtype)`. A batch without positives or negatives gives a finite value with a
        finite gradient. A loss that never waits for the GPU keeps it busy: no `.item()`, no
        `tensor[mask]`. The value depends on the batch, the parameters and the buffers alone, and
        is a mean, whose size does not follow that of the batch. It changes none of them.
        """
        raise NotImplementedError

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As in torch. The loss goes on where the state was saved, prepared for its epoch."""
        self._usage.missing.clear()
        return super().load_state_dict(state_dict, strict, assign)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Groups of the loss's parameters for the optimiser; `lr` is the backbone's learning rate.

        Each parameter is in one group: `[{"params": [self.proxies], "lr": 100 * lr}]`. A parameter
        in no group is not trained.
        """
        return []

    def refresh(self, embed: Embed) -> Iterable[nn.Parameter]:
        """Prepare the next epoch. It is called before each epoch, the first one included.

        Args:
            embed: `embed()` gives embeddings of the training set (M, D), of unit length and by the
                test transform, and their labels (M,). It costs a pass over the images.

        Returns:
            the parameters that it has overwritten. The trainer sets the optimiser's moments of
            these to 0.
        """
        return ()

    def batches(
        self, labels: NDArray[Any], steps: int, batch_size: int, seed: int, epoch: int
    ) -> NDArray[Any] | None:
        """Choose the batches of an epoch; None leaves that to the recipe's sampler.

        Equal arguments and an equal state of the loss give equal batches, so that a training
        continues after an interruption. Draw by `numpy.random.default_rng([seed, epoch])`.

        Args:
            labels: class of each image of the training set (M,).
            steps: number of batches.
            batch_size: images of a batch.
            seed: seed of the run.
            epoch: epochs that are over.

        Returns:
            rows of the training set (steps, batch_size), int64.
        """
        return None

    def statistics(self) -> dict[str, float]:
        """Numbers to record after an epoch, by name: columns of the run's history.parquet."""
        return {}

    def artefact(self) -> dict[str, Any]:
        """What the loss has learnt besides its parameters. It is kept with the run as JSON.

        It is called after the last step. If the file declares `GIVES_TREE`, the entry `merges` is
        drawn as a tree of the C classes, in the form of scipy's `linkage`; and the entry
        `thresholds` as lines over it.
        """
        return {}


def unit_length(vectors: Tensor) -> Tensor:
    """Vectors (..., D) at Euclidean length 1; one shorter than 1e-12 becomes 0, with gradient 0."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / torch.where(length > 1e-12, length, torch.inf)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances (N, M) of unit vectors `a` (N, D) and `b` (M, D).

    They are in [0, 4] up to rounding.
    """
    return 2 - 2 * (a @ b.T)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (N, M) of unit vectors `a` (N, D) and `b` (M, D).

    Equal vectors have distance 0, with gradient 0.
    """
    squared = squared_distances(a, b)
    # At equal vectors rounding leaves a little of 2 - 2 cos, and the gradient 1/sqrt of that
    coincide = squared <= 16 * torch.finfo(squared.dtype).eps
    return torch.where(coincide, 0, torch.where(coincide, 1, squared).sqrt())


def pair_masks(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Masks of the positive and the negative pairs of a batch: bool (N, N) each.

    Two rows of one class are a positive pair, even if they show the same image. A row and itself
    are no pair.

    >>> positive, negative = pair_masks(torch.tensor([3, 1, 3]))
    >>> positive.int().tolist(), negative.int().tolist()
    ([[0, 0, 1], [0, 0, 0], [1, 0, 0]], [[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    """
    same = labels[:, None] == labels
    return same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), ~same


def class_mask(labels: Tensor, num_classes: int) -> Tensor:
    """Whether row n is of class c: bool (N, C)."""
    return labels[:, None] == torch.arange(num_classes, device=labels.device)
