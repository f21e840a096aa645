"""`dmlbench.create_loss`: a loss by its name, with checked options."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from dmlbench import losses
from dmlbench.library.scoring import to_array
from dmlbench.losses import list_losses
from dmlbench.study.error_messages import describe_errors
from dmlbench.study.loss_options import options_model
from dmlbench.utils.errors import InvalidArgument, UnusableLoss
from dmlbench.utils.text import did_you_mean, error_reason, short_repr

if TYPE_CHECKING:
    from torch import Tensor

    from dmlbench.library.scoring import Values
    from dmlbench.losses.base import Loss

MAKES_NUMBERS = False
MAX_SIZE = 1_000_000_000
"""Of `num_classes` and `embedding_dim`."""


def create_loss(
    name: str,
    num_classes: int,
    embedding_dim: int,
    parents: Values | None = None,
    **options: Any,
) -> Loss:
    """Create the loss `name`, and check its options as a study does.

    Args:
        name: a name of `list_losses`; or `pml.CircleLoss`, any loss of pytorch-metric-learning by
            the name of its class; or the import path of your own class,
            `my_package.my_module.MyLoss`.
        num_classes: number C of classes in the training set.
        embedding_dim: dimension D of the embeddings.
        parents: super-class of each class, (levels, C), integers, the finest level first; only HPL
            with `hierarchy="given"` needs it.
        options: the options of the loss. What is left out has its default.

    Returns:
        a `torch.nn.Module`: `loss(embeddings, labels)` is one number with a gradient. Its own
        parameters learn in the groups of `loss.param_groups(lr)`.

    Raises:
        InvalidArgument: there is no such loss, or an option is wrong; it is a ValueError.

    >>> import torch
    >>> loss = create_loss("normalized_softmax", num_classes=2, embedding_dim=2, temperature=0.1)
    >>> loss
    NormalizedSoftmax(num_classes=2, embedding_dim=2, temperature=0.1, proxies_lr_factor=1.0)
    >>> loss(torch.eye(2), torch.tensor([0, 2]))
    Traceback (most recent call last):
    dmlbench.utils.errors.InvalidArgument: NormalizedSoftmax: labels hold 2, and the loss ...
    """
    if not isinstance(name, str):
        raise InvalidArgument(
            f"name: found {short_repr(name)}, not a text: the name of a loss, or the import path "
            f"of your own class."
        )
    for argument, value in (("num_classes", num_classes), ("embedding_dim", embedding_dim)):
        if isinstance(value, bool) or not _is_count(value):
            raise InvalidArgument(
                f"{argument}: found {short_repr(value)}, not a whole number from 1 to {MAX_SIZE:,}."
            )
    try:
        model = options_model(name)
        checked = model.model_validate(options).model_dump(mode="json")
    except UnusableLoss as error:
        hint = str(error) or did_you_mean(name, list_losses())
        raise InvalidArgument(f"no loss '{name}'. {hint}") from None
    except ValidationError as error:
        raise InvalidArgument("\n".join(describe_errors(error, model, name))) from None
    sizes = operator.index(num_classes), operator.index(embedding_dim)
    parents = None if parents is None else _check_parents(parents, sizes[0])
    try:
        return losses.create_loss(name, *sizes, parents, **checked)
    except ValueError as error:  # options that do not fit each other
        raise InvalidArgument(f"{name}: {error}") from None
    except (RuntimeError, MemoryError) as error:  # the memory is not enough
        raise InvalidArgument(
            f"{name}: it cannot be created for {sizes[0]:,} classes and dimension {sizes[1]:,}: "
            f"{error_reason(error)}."
        ) from None


def _check_parents(parents: Values, num_classes: int) -> Tensor:
    import torch

    array = to_array("parents", parents)
    if array.ndim != 2 or array.shape[1] != num_classes or array.dtype.kind not in "iu":
        raise InvalidArgument(
            f"parents: they are {array.dtype} {array.shape}, not integers (levels, {num_classes}): "
            f"for each level a list of the super-class of each class."
        )
    return torch.as_tensor(array.astype(np.int64))


def _is_count(value: Any) -> bool:
    try:
        return 0 < operator.index(value) <= MAX_SIZE
    except TypeError:
        return False
