"""Checks that a loss computes in float32, or in float64 if the embeddings are float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dmlbench.conformance.arithmetic import describe_gradient, dtype_name
from dmlbench.conformance.check import Broken, check, describe_error
from dmlbench.conformance.subject import Subject, batch, value_and_gradient, value_of
from dmlbench.losses.base import Loss
from dmlbench.utils.arithmetic import float32_precision, use_ieee_float32
from dmlbench.utils.device import choose_device

SEEDS = (0, 1, 2)  # of the batches; in one of them a pair may be at a kink
ROUNDING = 2.0**-24  # of float32, relative
DIGITS = 3e-5
"""Error of a gradient in float32, relative to its length. The losses here have 3e-6 at most, and
float16 or TF32 give 1e-4 or more."""
AMPLIFIED = 30
"""Errors allowed beyond what ROUNDING of the embeddings alone does to the gradient, as a factor.
float16 and TF32 round 8192 times as coarsely as float32."""
NARROW = (
    "Take away .half(), .bfloat16(), .to(torch.float16) and torch.autocast: the embeddings that "
    "`compute` gets are float32 or float64, and everything stays so."
)


@check(
    "precision",
    "bfloat16, float16 and float32 embeddings: finite, computed in float32; float64 stays",
    why="A model under autocast gives bfloat16 with 3 digits. exp, sums over thousands of classes "
    "and differences of near distances need float32, or the training stalls or ends in NaN.",
    fix="Write `compute`, not `forward`: Loss.forward widens the embeddings and turns autocast "
    "off. Parameters of the loss follow by `.to(embeddings.dtype)`. Use logsumexp or softmax, not "
    "exp alone. Keep the argument of a root above 0.",
)
def precision(subject: Subject) -> str:
    use_ieee_float32({})
    devices = sorted({"cpu", choose_device().type})
    for device in devices:
        for stage, loss in subject.stages():
            loss.to(device)
            embeddings, labels = (tensor.to(device) for tensor in batch())
            for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
                _check_values(stage, loss, embeddings.to(dtype), labels)
            _check_operators(stage, loss, embeddings, labels)
            _check_digits(stage, loss, device)
    return f"on {' and '.join(devices)}"


def _check_values(stage: str, loss: Loss, embeddings: Tensor, labels: Tensor) -> None:
    dtype = embeddings.dtype
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    value, gradient = value_and_gradient(loss, embeddings, labels)
    device = embeddings.device
    did = f"{stage.capitalize()}, it was given {dtype_name(dtype)} embeddings on {device}."
    if value.shape:
        raise Broken(did, f"The value has shape {tuple(value.shape)}; it must be one number.")
    if value.dtype != wide:
        raise Broken(did, f"The value is {dtype_name(value.dtype)}, not {dtype_name(wide)}.")
    if not (value.isfinite() and gradient.isfinite().all()):
        raise Broken(did, f"The value is {value:g}, {describe_gradient(gradient)}.")
    widened = value_of(loss, embeddings.to(wide), labels)
    if not torch.isclose(value, widened, rtol=1e-6, atol=1e-7):
        raise Broken(
            did, f"The value is {value:.7g}, but {widened:.7g} of the same numbers in float32."
        )


def _check_operators(stage: str, loss: Loss, embeddings: Tensor, labels: Tensor) -> None:
    did = f"{stage.capitalize()}, it was given float32 embeddings, and its operators were watched."
    try:
        with _OnlyWide():
            value_of(loss, embeddings, labels)
    except _Narrow as narrow:
        raise Broken(did, describe_error(narrow).removeprefix("_Narrow: "), fix=NARROW) from None
    if float32_precision() != "ieee":
        use_ieee_float32({})
        raise Broken(
            did,
            "It allowed TF32 or bfloat16 in products of float32, for the whole process.",
            fix="Take away set_float32_matmul_precision, allow_tf32 and fp32_precision.",
        )


class _Narrow(Exception):
    """An operator gave numbers with fewer digits than float32."""


class _OnlyWide(TorchDispatchMode):
    """Raises _Narrow at an operator whose result is floating-point with fewer than 32 bits."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if not (isinstance(tensor, Tensor) and tensor.is_floating_point()):
                continue
            if tensor.dtype.itemsize < torch.float32.itemsize:
                raise _Narrow(f"an operator gives {dtype_name(tensor.dtype)}")
        return result


def _check_digits(stage: str, loss: Loss, device: str) -> None:
    """Compare gradients in float32 with those in float64, of the batch that fits best."""
    if "random" in loss.BY_DESIGN:
        return  # it may draw other numbers in float64
    excess = []
    for seed in SEEDS:
        embeddings, labels = (tensor.to(device) for tensor in batch(seed))
        _, gradient = value_and_gradient(loss, embeddings, labels)
        _, exact = value_and_gradient(loss, embeddings.double(), labels)
        noise = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(seed))
        rounded = embeddings.double() * (1 + ROUNDING * noise.to(device))
        _, moved = value_and_gradient(loss, rounded, labels)
        length = float(exact.norm())
        if not length:
            return  # the check `moves` says so
        error = float((gradient - exact).norm()) / length
        allowed = max(DIGITS, AMPLIFIED * float((moved - exact).norm()) / length)
        excess.append((error / allowed, error, allowed))
    ratio, error, allowed = min(excess)
    if ratio > 1:
        raise Broken(
            f"{stage.capitalize()}, its gradients of float32 embeddings on {device} were compared "
            f"with those of the same numbers in float64, for {len(SEEDS)} batches.",
            f"They differ by {error:.0e} of their length or more; rounding to float32 explains "
            f"{allowed:.0e}. Something is computed or kept in fewer digits.",
            fix=NARROW,
        )


@check(
    "autocast",
    "autocast changes nothing",
    why="The recipe trains under autocast on a GPU. Matrix products inside the loss would be in "
    "bfloat16 there, with 3 digits, and a study would give another table than on a CPU.",
    fix="Write `compute`, not `forward`: Loss.forward turns autocast off around it.",
)
def autocast(subject: Subject) -> str | None:
    loss, (embeddings, labels) = subject.prepared(), batch()
    expected = value_of(loss, embeddings, labels)
    with torch.autocast("cpu", torch.bfloat16):
        value = value_of(loss, embeddings, labels)
    if not torch.equal(value, expected):
        raise Broken(
            "The value was computed with and without torch.autocast('cpu', torch.bfloat16).",
            f"It is {value:.7g} with it, and {expected:.7g} without.",
        )
    return None
