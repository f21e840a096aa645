"""Losses of deep metric learning: one file a loss, found by the file's name."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlbench.imports import importing

if TYPE_CHECKING:  # torch takes seconds, and a study only asks for names
    from torch import Tensor

    from dmlbench.losses.base import Loss


def list_losses() -> list[str]:
    """Names that `create_loss` knows."""
    names = (path.stem for path in Path(__file__).parent.glob("*.py"))
    return sorted(name for name in names if name != "base" and not name.startswith("_"))


def create_loss(
    name: str,
    num_classes: int,
    embedding_dim: int,
    parents: Tensor | None = None,
    **options: Any,
) -> Loss:
    """The loss of `dmlbench/losses/<name>.py`, its options as that file declares them.

    Or, where `name` has a dot: `pml.CircleLoss`, any loss of pytorch-metric-learning, by the
    options of its own constructor; `my_package.my_module.MyLoss`, a class of one's own.

    `parents` (levels, num_classes), int64, holds the super-class of each class, or is None.

    Raises:
        ValueError: there is no such loss.
    """
    path, _, attribute = name.rpartition(".")
    if path == "pml":
        with importing():
            wrapper = importlib.import_module("dmlbench.losses._pml")
        return wrapper.by_name(attribute, num_classes, embedding_dim, **options)
    if path:
        own = getattr(importlib.import_module(path), attribute)
        return own(num_classes, embedding_dim, parents, **options)
    if name not in list_losses():
        near = difflib.get_close_matches(name, list_losses(), n=1)
        guess = f" Did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"no loss '{name}'.{guess} Losses: {', '.join(list_losses())}.")
    with importing():
        module = importlib.import_module(f"dmlbench.losses.{name}")
    (loss,) = (
        value
        for key, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and key[0] != "_"
    )
    return loss(num_classes, embedding_dim, parents, **options)
