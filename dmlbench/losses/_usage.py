"""How a loss is used: what it was created with, and whether what it is given fits.

No number comes from here.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from dmlbench.utils.errors import InvalidArgument

MAKES_NUMBERS = False
PREPARATION = {
    "refresh": "calls `loss.refresh(embed)` before each epoch",
    "batches": "takes the images of each batch from `loss.batches(...)`",
}
"""The methods of a loss that a training loop has to call, if the loss has its own."""


class UnpreparedLoss(UserWarning):
    """A loss is called by a loop that does not call its `refresh` or its `batches`."""


class Usage:
    """The arguments of a loss, and what its caller has done so far.

    Args:
        loss_class: the class of the loss.
        positional: the arguments of its constructor, in their order.
        named: those that are given by name.
    """

    def __init__(
        self, loss_class: type, positional: tuple[Any, ...], named: Mapping[str, Any]
    ) -> None:
        self.title = loss_class.__name__
        self.arguments = bound_arguments(loss_class, positional, named)
        self.missing = {name for name in PREPARATION if is_noted(getattr(loss_class, name))}
        """Methods of PREPARATION that nobody has called yet."""
        self._range: Tensor | None = None
        """A number for each class, on the device of the last batch."""

    def __str__(self) -> str:
        """The call that creates the loss, as Python code."""
        values = {
            name: f"Tensor{tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            for name, value in self.arguments.items()
            if not (name == "parents" and value is None)
        }
        return f"{self.title}({', '.join(f'{name}={value}' for name, value in values.items())})"

    def check(self, embeddings: Tensor, labels: Tensor) -> None:
        """Check a batch, and warn once if the loss was not prepared.

        It takes a few microseconds, and does not read from a GPU, except for the first batch there.
        After that batch, a label that is out of the range is an assertion of CUDA.

        Raises:
            InvalidArgument: the batch is not what `Loss.forward` takes.
        """
        if self.missing:
            self._warn()
        try:
            # `gather` refuses any labels but integers (N,) in the range, on the device of the range
            size = len(self._range.gather(0, labels))  # type: ignore[union-attr]
            fits = (
                size > 0
                and embeddings.shape == (size, self.arguments["embedding_dim"])
                and embeddings.is_floating_point()
                and labels.dtype == torch.int64
                and labels.device == embeddings.device
            )
        except (AttributeError, KeyError, RuntimeError, TypeError):
            fits = False
        if not fits:
            self._examine(embeddings, labels)

    def _examine(self, embeddings: Tensor, labels: Tensor) -> None:
        """Refuse a batch with its reason; or remember the device of one that is right."""
        for name, value in (("embeddings", embeddings), ("labels", labels)):
            if not isinstance(value, Tensor):
                kind = type(value).__name__
                self._refuse(f"{name} are of type {kind}, not torch.Tensor. Use torch.as_tensor.")
        shape = embeddings.shape
        if len(shape) != 2 or not embeddings.is_floating_point():
            self._refuse(f"embeddings are {_form(embeddings)}, not floating-point numbers (N, D).")
        if not shape[0]:
            self._refuse("the batch is empty.")
        dim, classes = (self.arguments.get(name) for name in ("embedding_dim", "num_classes"))
        if isinstance(dim, int) and shape[1] != dim:
            self._refuse(
                f"embeddings have dimension {shape[1]}, and the loss was created with "
                f"embedding_dim={dim}."
            )
        if labels.shape != shape[:1]:
            self._refuse(
                f"labels have shape {tuple(labels.shape)}, and {shape[0]} embeddings need "
                f"({shape[0]},)."
            )
        if labels.dtype != torch.int64:
            self._refuse(f"labels are {_type(labels)}, not int64. `labels.long()` converts them.")
        if labels.device != embeddings.device:
            self._refuse(f"embeddings are on {embeddings.device}, labels on {labels.device}.")
        if isinstance(classes, int) and not labels.is_meta:
            low, high = (int(value) for value in labels.aminmax())
            if low < 0 or high >= classes:
                self._refuse(
                    f"labels hold {low if low < 0 else high}, and the loss was created with "
                    f"num_classes={classes}: labels are from 0 to {classes - 1}. Number the "
                    f"classes of the whole training set: numpy.unique(all_labels, "
                    f"return_inverse=True)[1]."
                )
            self._range = torch.empty(classes, dtype=torch.uint8, device=labels.device)

    def _warn(self) -> None:
        missing = {name: text for name, text in PREPARATION.items() if name in self.missing}
        self.missing.clear()
        warnings.warn(
            f"{self.title} is used without its {' and '.join(f'`{name}`' for name in missing)}, so "
            f"it is not the loss of its paper. A training loop {' and '.join(missing.values())}. "
            f"`dmlbench.train` does so.",
            UnpreparedLoss,
            stacklevel=6,  # the line that calls the loss: below are torch and `forward`
        )

    def _refuse(self, text: str) -> NoReturn:
        raise InvalidArgument(f"{self.title}: {text}")


def bound_arguments(
    function: Callable[..., Any], positional: tuple[Any, ...], named: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by their names, with the defaults; empty if they do not fit.

    >>> bound_arguments(lambda a, *, b=2, **more: None, (1,), {"c": 3})
    {'a': 1, 'b': 2, 'c': 3}
    """
    try:
        signature = inspect.signature(function)
        bound = signature.bind(*positional, **named)
    except (TypeError, ValueError):  # the constructor itself says what is wrong
        return {}
    bound.apply_defaults()
    arguments: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            arguments |= value
        elif signature.parameters[name].kind is not inspect.Parameter.VAR_POSITIONAL:
            arguments[name] = value
    return arguments


def note_calls(method: Callable[..., Any]) -> Callable[..., Any]:
    """`method` of a loss, which notes in the loss's `Usage` that it was called."""
    if is_noted(method):
        return method

    @functools.wraps(method)
    def noted(loss: Any, *positional: Any, **named: Any) -> Any:
        loss._usage.missing.discard(method.__name__)
        return method(loss, *positional, **named)

    noted.is_noted = True  # type: ignore[attr-defined]
    return noted


def is_noted(method: Callable[..., Any]) -> bool:
    """Whether `note_calls` made this method."""
    return getattr(method, "is_noted", False)


def _form(tensor: Tensor) -> str:
    return f"{_type(tensor)} {tuple(tensor.shape)}"


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
