"""Losses of deep metric learning. Each has a file here, and is known by the name of its file."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlbench.utils.modules import public_class
from dmlbench.utils.startup import heavy_imports
from dmlbench.utils.text import did_you_mean

if TYPE_CHECKING:  # torch takes seconds, and a study only asks for names
    from torch import Tensor

    from dmlbench.losses.base import Loss


MAKES_NUMBERS = False


def list_losses() -> list[str]:
    """The names of the losses in this package, sorted. `create_loss` takes them.

    >>> list_losses()[:4]
    ['angular', 'arcface', 'circle', 'contrastive']
    """
    names = (path.stem for path in Path(__file__).parent.glob("*.py"))
    return sorted(name for name in names if name != "base" and not name.startswith("_"))


def create_loss(
    name: str,
    num_classes: int,
    embedding_dim: int,
    parents: Tensor | None = None,
    **options: Any,
) -> Loss:
    """Create the loss `name`.

    Args:
        name: a name of `list_losses`; or `pml.CircleLoss`, any loss of pytorch-metric-learning by
            the name of its class; or the import path of your own class,
            `my_package.my_module.MyLoss`.
        num_classes: number C of classes in the training set.
        embedding_dim: dimension D of the embeddings.
        parents: super-class of each class, (levels, C), int64, the finest level first. None if the
            data set has no super-classes.
        options: the options that the loss's file declares, or that the constructor of the class
            takes. What is left out has its default.

    Returns:
        a module: `loss(embeddings, labels)` is one number with a gradient. `Loss` has the rest.

    Raises:
        ValueError: no file here has this name, or the options do not fit each other.

    >>> import torch
    >>> loss = create_loss("rll", num_classes=2, embedding_dim=2, margin=0.6)
    >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
    >>> value = loss(embeddings, torch.tensor([0, 0, 1, 1]))
    >>> round(value.item(), 3)
    0.711
    """
    path, _, attribute = name.rpartition(".")
    if path == "pml":
        with heavy_imports():
            wrapper = importlib.import_module("dmlbench.losses._pml")
        return wrapper.by_name(attribute, num_classes, embedding_dim, **options)
    if path:
        user_class = getattr(importlib.import_module(path), attribute)
        return user_class(num_classes, embedding_dim, parents, **options)
    if name not in list_losses():
        raise ValueError(f"no loss '{name}'. {did_you_mean(name, list_losses())}")
    with heavy_imports():
        module = importlib.import_module(f"dmlbench.losses.{name}")
    return public_class(module)(num_classes, embedding_dim, parents, **options)
