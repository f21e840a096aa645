"""Watching for calls at which the host would wait for the GPU, on any machine.

`NoHost` sees each operator that runs, those of the backward pass too: on a CPU, autograd runs it in
the same thread. `NoReading` sees calls of Python whose operators do not show it. The list of
operators has these sources:

- torch itself tags the operators whose result is a number of Python, or has a shape that follows
  from values: `data_dependent_output` and `dynamic_output_shape`.
- A copy between devices waits, unless it asks for `non_blocking`. A tensor that is made from
  numbers of Python is such a copy.
- torch's source in aten/src/ATen/native: `multinomial` (Distributions.cpp), `histc`
  (cuda/SummaryOps.cu) and `_linalg_check_errors` (BatchLinearAlgebra.cpp) read values. With
  deterministic algorithms, `scatter` and `scatter_add` of a tensor with two or more dimensions
  (TensorAdvancedIndexing.cpp) copy its strides from the host. They do so in older versions that
  this package allows, and no longer in torch 2.15. They are the backward pass of `gather`, `topk`,
  `sort` and `max(dim)`. The backward pass of `tensor[rows]`, `index_add` and `index_put` check
  their indices on the GPU since torch 2.4 (cuda/Indexing.cu), so they do not wait.

No such list is complete. On a GPU, `torch.cuda.set_sync_debug_mode` makes CUDA itself report waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

MAKES_NUMBERS = False
TAGS = {
    torch.Tag.data_dependent_output: "the host must know its result",
    torch.Tag.dynamic_output_shape: "the host must know how large its result is",
}
CHECKS = ("multinomial", "histc", "_linalg_check_errors")
SCATTERS = ("scatter", "scatter_add", "scatter_reduce")
COPIES = {
    getattr(Tensor, name): name for name in ("tolist", "numpy", "cpu", "__array__", "__dlpack__")
}
"""Calls that bring a whole tensor to the host."""
READS = COPIES | {
    getattr(Tensor, name): name
    for name in ("item", "__bool__", "__float__", "__int__", "__index__")
}
FROM_PYTHON = (torch.tensor, torch.as_tensor, torch.asarray)


class Waits(Exception):
    """The host would wait for the GPU here."""


def refuse(reason: str) -> None:
    """Raise Waits."""
    raise Waits(reason)


class NoHost(TorchDispatchMode):
    """Watches for operators at which the host waits, forward and backward.

    Args:
        report: is called with a description of each; the default raises Waits.
    """

    def __init__(self, report: Callable[[str], None] = refuse) -> None:
        super().__init__()
        self.report = report

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if reason := why_it_waits(func, args, kwargs or {}):
            self.report(reason)
        return func(*args, **(kwargs or {}))


def why_it_waits(operator: Any, args: tuple, kwargs: dict[str, Any]) -> str | None:
    """Why the host waits at this call of an operator; None if it does not."""
    name = operator.overloadpacket.__name__
    kind = name.removesuffix("_")
    if kind in ("index", "index_put"):
        return _why_indexing_waits(args[0], [index for index in args[1] if index is not None])
    if kind in SCATTERS:
        source = kwargs.get("src", args[3] if len(args) > 3 else None)
        if isinstance(source, Tensor) and args[0].dim() > 1:
            return (
                f"{name}: with deterministic algorithms it copies from the host. It is the "
                f"backward pass of gather, topk, sort and max(dim); that of tensor[rows, columns] "
                f"and amax does not wait"
            )
        return None
    if kind == "copy":
        return _why_a_copy_waits(args[1].device, args[0].device, kwargs)
    if name == "_to_copy":
        return _why_a_copy_waits(args[0].device, kwargs.get("device"), kwargs)
    if name == "lift_fresh" and args[0].dim():
        return "a tensor is made from numbers of Python, and copied to the GPU"
    if name in CHECKS:
        return f"{name}: the host checks its input or its result"
    return next((f"{name}: {TAGS[tag]}" for tag in operator.tags if tag in TAGS), None)


def _why_indexing_waits(indexed: Tensor, indices: list[Tensor]) -> str | None:
    if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
        return "indexing by a mask: the host must know how many rows that gives"
    if any(index.device != indexed.device for index in indices):
        return "indexing by a tensor of the host: it is copied to the GPU"
    return None


def _why_a_copy_waits(
    source: torch.device, target: torch.device | None, kwargs: dict[str, Any]
) -> str | None:
    if target is None or source.type == target.type:
        return None
    if kwargs.get("non_blocking") and target.type != "cpu":
        return None
    return f"a copy from {source.type} to {target.type}: the host waits until it is done"


class NoReading(TorchFunctionMode):
    """Like NoHost, for calls such as tolist() that copy a tensor to Python without an operator."""

    def __init__(self, report: Callable[[str], None] = refuse) -> None:
        super().__init__()
        self.report = report

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in READS:
            self.report(f"Tensor.{READS[func]}(): it brings values to the host")
        elif func is Tensor.to and "cpu" in _strings(args, kwargs):
            self.report("Tensor.to('cpu'): it brings values to the host")
        elif func is Tensor.new_tensor or (func in FROM_PYTHON and kwargs.get("device")):
            self.report("a tensor is made from numbers of Python, and copied to the GPU")
        return func(*args, **kwargs)


class NoRoundTrip(TorchFunctionMode):
    """Raises Waits if whole tensors go to the host: to numpy, to a list, or number by number.

    Args:
        images: of the batch. A loop that reads so many numbers, and a tensor made of so many
            numbers of Python after it, are such a trip.
    """

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images, self.reads = images, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in COPIES:
            refuse(f"Tensor.{COPIES[func]}(): a whole tensor goes to the host")
        if func is Tensor.to and "cpu" in _strings(args, kwargs):
            refuse("Tensor.to('cpu'): a whole tensor goes to the host")
        self.reads += func in READS
        result = func(*args, **kwargs)
        if func in FROM_PYTHON and self.reads >= self.images <= result.numel():
            refuse(f"{self.reads} numbers were read one by one, and a tensor is made from numbers")
        return result


def _strings(args: tuple, kwargs: dict[str, Any]) -> list[str]:
    return [value for value in (*args, *kwargs.values()) if isinstance(value, str)]
