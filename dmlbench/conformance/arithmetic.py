"""Values and gradients: right, in float32 or float64, and numbers wherever they can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dmlbench.conformance.check import Broken, check, raised
from dmlbench.conformance.subject import Subject, batch, value_and_gradient, value_of
from dmlbench.losses.base import Loss

STEP, DIRECTIONS, TRIES = 1e-6, 4, 12
TOLERANCE = 1e-4  # of a derivative, by its gradient's length: a mistake is more, rounding is less
FOLLOW = (
    "The embeddings are float64 here and in some checks, float32 in a training: what is made or "
    "kept in the loss follows them: self.proxies `.to(embeddings.dtype)`."
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
        loss, given = subject.create(), embeddings.to(dtype).requires_grad_()
        shapes = (
            f"{named(dtype)} embeddings {tuple(given.shape)}, int64 labels {tuple(labels.shape)}"
        )
        did = f"A new loss was called: loss(embeddings, labels), {shapes}."
        try:
            value = loss(given, labels)
        except Exception as error:  # whatever the loss raises
            fix = FOLLOW if dtype == torch.float64 else ""
            raise Broken(did, f"It raised {raised(error)}", fix=fix) from None
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
    warned=frozenset({"library"}),
    may_be_meant=True,
    why="The optimiser never sees the value, only the gradient: where it belongs to another "
    "function, that other function is what is minimised, and the curve of the loss tells nothing.",
    fix="A detach(), .data, .item() or no_grad around something that depends on the embeddings; a "
    "backward written by hand; numpy in between. Where a part is a constant on purpose, take "
    "detach(): then this check holds the detached values fixed too.",
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

    def now(held: list[Tensor] | None = None) -> float:
        with torch.no_grad(), _Detached(held):
            return value_of(loss, embeddings, labels).item()

    worst = 0.0
    for (name, moved), of_autograd in zip(inputs.items(), gradients, strict=True):
        told, seen, error = _compare(moved, of_autograd, now)
        worst = max(worst, error)
        if error <= TOLERANCE:
            continue
        did = f"{stage.capitalize()}, {name} moved {STEP:g} along a random direction, in float64."
        saw = f"The value grows by {seen:.6g} a unit; autograd says {told:.6g}."
        *_, error = _compare(moved, of_autograd, lambda: now(detached.values))
        if error > TOLERANCE:
            raise Broken(did, saw, excusable=False)
        raise Broken(
            did,
            f"{saw} With the values that it detaches ({len(detached.values)}) held fixed, both "
            "agree: what is detached depends on what is learnt.",
        )
    return worst


def _compare(
    moved: Tensor, gradient: Tensor, value: Callable[[], float]
) -> tuple[float, float, float]:
    """Directional derivative by autograd and by differences where they differ most, and by how
    much of the gradient's length. A direction that crosses a kink is drawn anew."""
    random = torch.Generator().manual_seed(2)
    start, worst, smooth = moved.detach().clone(), (0.0, 0.0, -1.0), 0
    for _ in range(TRIES):
        direction = torch.randn(start.shape, generator=random, dtype=start.dtype)
        at = {}
        for steps in (-2, -1, 1, 2):
            moved.data = start + steps * STEP * direction
            at[steps] = value()
        moved.data = start
        near, far = (at[1] - at[-1]) / (2 * STEP), (at[2] - at[-2]) / (4 * STEP)
        scale = max(float(gradient.norm()), abs(near), 1e-3)
        if abs(near - far) > TOLERANCE / 4 * scale:
            continue
        smooth += 1
        told = float((gradient * direction).sum())
        worst = max(worst, (told, near, abs(told - near) / scale), key=lambda found: found[2])
        if smooth == DIRECTIONS:
            break
    if not smooth:
        raise Broken(
            f"The value was looked at along {TRIES} random directions, at steps of {STEP:g}.",
            "It jumps along each of them: it has no derivative there.",
        )
    return worst


class _Detached(TorchFunctionMode):
    """Notes the values that are detached - or puts `held` in their places, in their order."""

    def __init__(self, held: list[Tensor] | None = None) -> None:
        super().__init__()
        self.values: list[Tensor] = []
        self.held = None if held is None else iter(held)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.Tensor.detach, torch.detach) and result.is_floating_point():
            if self.held is not None:
                return next(self.held, result)
            self.values.append(result.clone())
        return result


@check(
    "precision",
    "bfloat16, float16 and float32 embeddings: finite, computed in float32; float64 stays",
    why="A model under autocast gives bfloat16 with 3 digits. exp, sums over thousands of classes "
    "and differences of near distances need float32, or the training stalls, or ends in NaN.",
    fix="Write `compute`, not `forward`: Loss.forward widens the embeddings and turns autocast "
    "off. Own parameters follow by `.to(embeddings.dtype)`; take logsumexp or softmax and no bare "
    "exp; take a root of what is kept above 0.",
)
def precision(subject: Subject) -> str:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        for stage, loss in subject.stages():
            loss.to(device)
            embeddings, labels = (tensor.to(device) for tensor in batch())
            for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
                _computed_wide(stage, loss, embeddings.to(dtype), labels)
    return f"on {' and '.join(devices)}"


def _computed_wide(stage: str, loss: Loss, embeddings: Tensor, labels: Tensor) -> None:
    dtype = embeddings.dtype
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    value, gradient = value_and_gradient(loss, embeddings, labels)
    did = f"{stage.capitalize()}, it was given {named(dtype)} embeddings on {embeddings.device}."
    if value.shape:
        raise Broken(did, f"The value has shape {tuple(value.shape)}; it must be one number.")
    if value.dtype != wide:
        raise Broken(did, f"The value is {named(value.dtype)}, not {named(wide)}.")
    if not (value.isfinite() and gradient.isfinite().all()):
        raise Broken(did, f"The value is {value:g}, {faults(gradient)}.")
    widened = value_of(loss, embeddings.to(wide), labels)
    if not torch.isclose(value, widened, rtol=1e-6, atol=1e-7):
        raise Broken(
            did, f"The value is {value:.7g}, and {widened:.7g} of the same numbers in float32."
        )


@check(
    "autocast",
    "autocast changes nothing",
    why="The recipe trains under autocast on a GPU: matrix products inside the loss would be taken "
    "in bfloat16 there, with 3 digits, and the same study give another table on a CPU.",
    fix="Write `compute`, not `forward`: Loss.forward turns autocast off around it.",
)
def autocast(subject: Subject) -> str | None:
    loss, (embeddings, labels) = subject.prepared(), batch()
    expected = value_of(loss, embeddings, labels)
    with torch.autocast("cpu", torch.bfloat16):
        value = value_of(loss, embeddings, labels)
    if not torch.equal(value, expected):
        raise Broken(
            "The value was taken in and outside of torch.autocast('cpu', torch.bfloat16).",
            f"It is {value:.7g} in it, and {expected:.7g} outside.",
        )
    return None


@check(
    "divergence",
    "embeddings that are NaN or infinite give no finite value",
    why="A model that has diverged must be seen: the trainer stops at a loss that is no number. A "
    "loss that sorts such embeddings out looks as if all pairs were in order, and the run "
    "goes on for hours.",
    fix="nan_to_num, comparisons that drop NaN pairs (NaN > 0 is False), nanmean, or a mean over "
    "the pairs that violate. Multiply by the mask rather than select by it, or add "
    "0 * embeddings.sum().",
)
def divergence(subject: Subject) -> str | None:
    loss, (embeddings, labels) = subject.prepared(), batch()
    for what, where in (("all embeddings", slice(None)), ("one entry of one", (3, 2))):
        for broken in (torch.nan, torch.inf):
            given = embeddings.clone()
            given[where] = broken
            if (value := value_of(loss, given, labels)).isfinite():
                raise Broken(f"It was given a batch with {what} {broken}.", f"Value {value:.4g}.")
    return None


def faults(gradient: Tensor) -> str:
    """How many rows of a gradient (N, D) are no numbers."""
    rows = int((~gradient.isfinite().flatten(1).all(dim=1)).sum())
    return (
        f"its gradient is no number in {rows} of {len(gradient)} rows"
        if rows
        else ("its gradient is finite")
    )


def named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
