"""Checks of values and gradients: they are right and finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dmlbench.conformance.check import LIBRARY, Broken, check, describe_error
from dmlbench.conformance.subject import Subject, batch, value_of
from dmlbench.losses.base import Loss

STEP, DIRECTIONS, TRIES = 1e-6, 4, 12
TOLERANCE = 1e-4  # of a derivative, relative to the gradient; rounding is less, a mistake more
FOLLOW = (
    "The embeddings are float64 here and in some checks, float32 in a training. Tensors that the "
    "loss holds or creates have to follow them: `self.proxies.to(embeddings.dtype)`."
)
OUT_OF_PLACE = (
    "Write `embeddings = embeddings * 2`, not `embeddings *= 2` or a method that ends in an "
    "underscore: the batch belongs to the trainer."
)
FINITE = (
    "Look for a division by 0, the log or root of 0, exp of large numbers: .clamp(min=...), "
    "logsumexp."
)
CONNECTED = (
    "Stay in torch from the embeddings to the value: no .item(), .data, detach(), numpy or no_grad "
    "in between."
)


@check(
    "call",
    "embeddings (N, D) and labels (N,) give one finite number, in float32 and in float64",
    why="The trainer calls it so at each step, and so does every other check.",
    fix="`def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor`: embeddings (N, D) of "
    "any length, labels (N,) of int64 in 0 ... num_classes - 1; no dtype, device or batch size is "
    "fixed.",
)
def call(subject: Subject) -> None:
    embeddings, labels = batch()
    for dtype in (torch.float32, torch.float64):
        loss, cast = subject.create(), embeddings.to(dtype).requires_grad_()
        shapes = f"embeddings {tuple(cast.shape)}, int64 labels {tuple(labels.shape)}"
        did = f"A new loss was called: loss(embeddings, labels), {dtype_name(dtype)} {shapes}."
        try:
            value = loss(cast, labels)
        except Exception as error:  # the loss may raise anything
            fix = FOLLOW if dtype == torch.float64 else ""
            fix = OUT_OF_PLACE if "in-place" in str(error) else fix
            raise Broken(did, f"It raised {describe_error(error)}", fix=fix) from None
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise Broken(did, f"It returned a {kind}, a loss is a tensor of one number.")
        if value.shape:
            saw = f"It returned a tensor of shape {tuple(value.shape)}, a loss is one number."
            raise Broken(did, saw, fix="Return its mean over the batch: .mean().")
        if not value.isfinite():
            raise Broken(did, f"It returned {value.item():g}.", fix=FINITE)
        if not value.requires_grad:
            raise Broken(did, "The number that it returned has no gradient.", fix=CONNECTED)


@check(
    "gradient",
    "autograd's gradient is the derivative of the value",
    warned=LIBRARY,
    declarable=True,
    why="The optimiser never sees the value, only the gradient. If that belongs to another "
    "function, the other function is minimised, and the curve of the loss means nothing.",
    fix="The cause is a detach(), .data, .item() or no_grad around something that depends on the "
    "embeddings, a backward written by hand, or numpy in between. If a part is a constant on "
    "purpose, use detach(): then this check holds the detached values fixed too.",
)
def gradient(subject: Subject) -> str:
    worst = max(_gradient_error(stage, loss.double()) for stage, loss in subject.stages())
    return f"to {worst:.0e} of finite differences"


def _gradient_error(stage: str, loss: Loss) -> float:
    embeddings, labels = batch()
    embeddings = embeddings.double().requires_grad_()
    inputs = {"the embeddings": embeddings}
    inputs |= {f"its parameter '{name}'": p for name, p in loss.named_parameters()}
    with _Detached() as detached:
        value = value_of(loss, embeddings, labels)
    gradients = torch.autograd.grad(value, list(inputs.values()), materialize_grads=True)

    def evaluate(fixed: list[Tensor] | None = None) -> float:
        with torch.no_grad(), _Detached(fixed):
            return value_of(loss, embeddings, labels).item()

    largest = 0.0
    for (name, tensor), gradient_of in zip(inputs.items(), gradients, strict=True):
        by_autograd, by_differences, error = _compare(tensor, gradient_of, evaluate)
        largest = max(largest, error)
        if error <= TOLERANCE:
            continue
        did = f"{stage.capitalize()}, {name} moved {STEP:g} along a random direction, in float64."
        saw = f"The value grows by {by_differences:.6g} per unit; autograd says {by_autograd:.6g}."
        *_, error = _compare(tensor, gradient_of, lambda: evaluate(detached.values))
        if error > TOLERANCE:
            raise Broken(did, saw, excusable=False)
        raise Broken(
            did,
            f"{saw} With the values that it detaches ({len(detached.values)}) held fixed, both "
            "agree: what is detached depends on what is learnt.",
        )
    return largest


def _compare(
    tensor: Tensor, gradient: Tensor, evaluate: Callable[[], float]
) -> tuple[float, float, float]:
    """Compare `gradient` with finite differences, along random directions.

    A direction that crosses a kink does not count; another one is drawn.

    Args:
        tensor: what is moved; `evaluate` depends on it.
        gradient: autograd's gradient at `tensor`.
        evaluate: gives the value.

    Returns:
        the directional derivatives by autograd and by differences where they differ most, and
        their difference relative to the gradient's length.
    """
    random = torch.Generator().manual_seed(2)
    start, worst, smooth = tensor.detach().clone(), (0.0, 0.0, -1.0), 0
    for _ in range(TRIES):
        direction = torch.randn(start.shape, generator=random, dtype=start.dtype)
        values = {}
        for steps in (-2, -1, 1, 2):
            tensor.data = start + steps * STEP * direction
            values[steps] = evaluate()
        tensor.data = start
        near = (values[1] - values[-1]) / (2 * STEP)
        far = (values[2] - values[-2]) / (4 * STEP)
        scale = max(float(gradient.norm()), abs(near), 1e-3)
        if abs(near - far) > TOLERANCE / 4 * scale:
            continue
        smooth += 1
        by_autograd = float((gradient * direction).sum())
        error = abs(by_autograd - near) / scale
        worst = max(worst, (by_autograd, near, error), key=lambda compared: compared[2])
        if smooth == DIRECTIONS:
            break
    if not smooth:
        raise Broken(
            f"The value was computed along {TRIES} random directions, at steps of {STEP:g}.",
            "It jumps along each of them: it has no derivative there.",
        )
    return worst


class _Detached(TorchFunctionMode):
    """Records the values that are detached; or replaces them by `fixed`, in their order."""

    def __init__(self, fixed: list[Tensor] | None = None) -> None:
        super().__init__()
        self.values: list[Tensor] = []
        self.fixed = None if fixed is None else iter(fixed)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.Tensor.detach, torch.detach) and result.is_floating_point():
            if self.fixed is not None:
                return next(self.fixed, result)
            self.values.append(result.clone())
        return result


@check(
    "divergence",
    "embeddings that are NaN or infinite give no finite value",
    why="The trainer stops a model that has diverged when the loss is no number. If a loss leaves "
    "out such embeddings, all pairs seem to be in order, and the run goes on for hours.",
    fix="The cause is nan_to_num, a comparison that drops NaN pairs (NaN > 0 is False), nanmean, "
    "or a mean over the pairs that violate. Multiply by the mask rather than select by it, or add "
    "0 * embeddings.sum().",
)
def divergence(subject: Subject) -> str | None:
    loss, (embeddings, labels) = subject.prepared(), batch()
    for which, entries in (("all entries are", slice(None)), ("one entry is", (3, 2))):
        for number in (torch.nan, torch.inf):
            diverged = embeddings.clone()
            diverged[entries] = number
            if (value := value_of(loss, diverged, labels)).isfinite():
                saw = f"The value is {value:.4g}."
                raise Broken(f"It was given embeddings of which {which} {number}.", saw)
    return None


def describe_gradient(gradient: Tensor) -> str:
    """In how many rows a gradient (N, D) is no number, in words."""
    rows = int((~gradient.isfinite().flatten(1).all(dim=1)).sum())
    if rows:
        return f"its gradient is no number in {rows} of {len(gradient)} rows"
    return "its gradient is finite"


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")
