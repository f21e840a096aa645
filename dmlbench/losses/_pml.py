"""Losses of pytorch-metric-learning (Musgrave, Belongie, Lim) as subclasses of `Loss`.

They wait for the GPU when they select pairs. Most of them set embeddings to unit length.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from pytorch_metric_learning import losses
from torch import Tensor, nn

from dmlbench.losses._memory import CrossBatchMemory, References, memory_statistics
from dmlbench.losses.base import Loss

# Arguments of constructors that follow from the data set and the backbone
SIZES = {"num_classes": "num_classes", "embedding_size": "dim", "descriptors_dim": "dim"}
# Base classes, and losses that refuse labels
UNFIT = {"BaseMetricLossFunction", "GenericPairLoss", "ManifoldLoss", "VICRegLoss"}


class PmlLoss(Loss):
    """A loss of pytorch-metric-learning as a `Loss`.

    Args:
        criterion: the library's loss.
        miner: the library's selection of pairs or triplets from the batch; None takes them all.
        lr_factor: the learning rate of the loss's parameters, relative to the backbone's.
        memory: embeddings of earlier batches; `memory_loss` is added then.
    """

    def __init__(
        self,
        criterion: nn.Module,
        miner: nn.Module | None = None,
        lr_factor: float = 1.0,
        memory: CrossBatchMemory | None = None,
    ) -> None:
        super().__init__()
        self.criterion = criterion
        self.miner = miner
        self.lr_factor = lr_factor
        self.memory = memory

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        if not embeddings.isfinite().all():  # the library drops such pairs: 0 would look healthy
            return embeddings.sum() * torch.nan
        mined = None if self.miner is None else self.miner(embeddings, labels)
        value = self.criterion(embeddings, labels, mined)
        references = None if self.memory is None else self.memory(embeddings, labels)
        return value if references is None else value + self.memory_loss(embeddings, references)

    def memory_loss(self, embeddings: Tensor, references: References) -> Tensor:
        """The loss of the pairs of `embeddings` (N, D) and `references`: one number."""
        positive, negative = self.mine_pairs(embeddings, references)
        pairs = (*positive.nonzero().unbind(1), *negative.nonzero().unbind(1))
        return self.criterion(embeddings, None, pairs, references.embeddings)

    def mine_pairs(self, embeddings: Tensor, references: References) -> tuple[Tensor, Tensor]:
        """Masks (N, M) of the positive and negative pairs that count; by default, all do."""
        return references.positive, references.negative

    def statistics(self) -> dict[str, float]:
        return memory_statistics(self.memory)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        parameters = list(self.parameters())
        return [{"params": parameters, "lr": lr * self.lr_factor}] if parameters else []


def by_name(
    name: str, num_classes: int, embedding_dim: int, *, lr_factor: float = 1.0, **options: Any
) -> PmlLoss:
    """Create the loss `name` of pytorch-metric-learning.

    `options` are those of its constructor. The sizes in `SIZES` are filled in if it requires them.
    """
    cls = getattr(losses, name)
    defaults = _arguments(cls)
    values = {"num_classes": num_classes, "dim": embedding_dim}
    sizes = {
        argument: values[SIZES[argument]]
        for argument, default in defaults.items()
        if argument in SIZES and default is inspect.Parameter.empty
    }
    loss = PmlLoss(cls(**sizes, **options), lr_factor=lr_factor)
    loss._usage.title = f"pml.{name}"
    loss._usage.arguments = {
        "num_classes": num_classes,
        "embedding_dim": embedding_dim,
        **{argument: value for argument, value in defaults.items() if argument not in SIZES},
        **options,
        "lr_factor": lr_factor,
    }
    return loss


def catalogue() -> dict[str, dict[str, list[Any]]]:
    """The losses that `by_name` creates: name -> option -> [annotation, default if any]."""
    options_of = {}
    for name, cls in vars(losses).items():
        if name in UNFIT or not inspect.isclass(cls):
            continue
        if issubclass(cls, losses.BaseMetricLossFunction):
            options = {
                argument: _describe_default(default)
                for argument, default in _arguments(cls).items()
                if argument not in SIZES
            }
            options_of[name] = {**options, "lr_factor": ["float", 1.0]}
    return options_of


def _arguments(cls: type) -> dict[str, Any]:
    """Arguments of the constructor of `cls`: name -> default.

    Those of the losses that it inherits from count too. Those of the library's base classes do not:
    they are objects (reducers, distances, regularisers), which a study cannot write.
    """
    arguments: dict[str, Any] = {}
    for base in cls.__mro__:
        if base.__name__ in UNFIT or base.__module__.endswith(".mixins"):
            continue
        if base.__module__.startswith(losses.__name__) and "__init__" in vars(base):
            for argument in list(inspect.signature(base).parameters.values()):
                if argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
                    arguments.setdefault(argument.name, argument.default)
    return arguments


def _describe_default(default: Any) -> list[Any]:
    """[annotation, default if any] of an argument. The library annotates nothing.

    Where the default is a number, any number is allowed; else the type of the default.
    """
    if default is inspect.Parameter.empty:
        return ["int | float | bool | str"]
    if default is None:
        return ["int | float | bool | str | None", None]
    if isinstance(default, bool):
        return ["bool", default]
    # Some strings stand for a number, as in triplets_per_anchor
    return ["int | float" if isinstance(default, int | float) else "int | str", default]
