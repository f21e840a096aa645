"""Losses of pytorch-metric-learning (Musgrave, Belongie, Lim) under our contract.

They synchronise with the host as they pick pairs. Most normalise the embeddings themselves.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from pytorch_metric_learning import losses
from torch import Tensor, nn

from dmlbench.losses.base import Loss

# Of a constructor's arguments, what the data set and the backbone decide
SIZES = {"num_classes": "num_classes", "embedding_size": "dim", "descriptors_dim": "dim"}
# Bases, and losses that refuse labels
UNFIT = {"BaseMetricLossFunction", "GenericPairLoss", "ManifoldLoss", "VICRegLoss"}


class PmlLoss(Loss):
    """A criterion of pytorch-metric-learning, on what a miner of it picks from the batch.

    Its own parameters learn at `lr_factor` times the rate of the backbone.
    """

    def __init__(
        self, criterion: nn.Module, miner: nn.Module | None = None, lr_factor: float = 1.0
    ) -> None:
        super().__init__()
        self.criterion = criterion
        self.miner = miner
        self.lr_factor = lr_factor

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        if not embeddings.isfinite().all():  # would be sorted out, and the loss be a healthy 0
            return embeddings.sum() * torch.nan
        picked = None if self.miner is None else self.miner(embeddings, labels)
        return self.criterion(embeddings, labels, picked)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        own = list(self.parameters())
        return [{"params": own, "lr": lr * self.lr_factor}] if own else []


def by_name(
    name: str, num_classes: int, embedding_dim: int, *, lr_factor: float = 1.0, **options: Any
) -> PmlLoss:
    """The loss `name` of pytorch-metric-learning, by the options of its own constructor."""
    cls = getattr(losses, name)
    known = {"num_classes": num_classes, "dim": embedding_dim}
    required = inspect.Parameter.empty
    sizes = {
        argument: known[SIZES[argument]]
        for argument, default in _arguments(cls).items()
        if argument in SIZES and default is required
    }
    return PmlLoss(cls(**sizes, **options), lr_factor=lr_factor)


def catalogue() -> dict[str, dict[str, list[Any]]]:
    """Options of each loss that `by_name` makes, as [annotation] or [annotation, default]."""
    found = {}
    for name, cls in vars(losses).items():
        if name in UNFIT or not inspect.isclass(cls):
            continue
        if issubclass(cls, losses.BaseMetricLossFunction):
            options = {
                argument: _described(default)
                for argument, default in _arguments(cls).items()
                if argument not in SIZES
            }
            found[name] = {**options, "lr_factor": ["float", 1.0]}
    return found


def _arguments(cls: type) -> dict[str, Any]:
    """Arguments of the constructors of `cls` and of the losses it is made from, with defaults.

    The library's bases ask for objects (reducers, distances, regularisers): no settings.
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


def _described(default: Any) -> list[Any]:
    """The library annotates nothing: a number may be any number, the rest what its default is."""
    if default is inspect.Parameter.empty:
        return ["int | float | bool | str"]
    if default is None:
        return ["int | float | bool | str | None", None]
    number = isinstance(default, int | float) and not isinstance(default, bool)
    # a string may stand for a number, as in triplets_per_anchor
    kind = "int | float" if number else "bool" if isinstance(default, bool) else "int | str"
    return [kind, default]
