"""Checks that a loss overwrites nothing that it is given, and leaves nothing to chance."""

from __future__ import annotations

import random as python_random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dmlbench.conformance.arithmetic import dtype_name
from dmlbench.conformance.check import LIBRARY, Broken, check
from dmlbench.conformance.subject import Subject, batch, same, value_of

CLOCKS = ("time", "monotonic", "perf_counter", "process_time")
SOURCES: dict[str, dict[str, Any]] = {
    "torch's global generator": {"torch_seed": 2},
    "numpy's global generator": {"numpy_seed": 2},
    "Python's module random": {"python_seed": 2},
    "the clock of the module time": {"seconds": 1.8e9 + 98_765.5},
}


@check(
    "inputs",
    "it leaves embeddings and labels as they are",
    warned=LIBRARY,
    why="The batch belongs to the trainer, which may use it after the loss: for a second loss, for "
    "a score, or in the backward pass. What was overwritten gives other gradients there.",
    fix="Write out of place: embeddings = embeddings * 2, labels = labels.sort().values. The cause "
    "is *=, a method that ends in an underscore, out=, copy_, or .data.",
)
def inputs(subject: Subject) -> None:
    for stage, loss in subject.stages():
        for dtype in (torch.float32, torch.float64):
            embeddings, labels = batch()
            embeddings = embeddings.to(dtype).requires_grad_()
            given = {"embeddings": embeddings, "labels": labels}
            before = {name: tensor.detach().clone() for name, tensor in given.items()}
            loss(embeddings, labels).backward()
            for name, tensor in given.items():
                if not same(tensor.detach(), before[name]):
                    raise Broken(
                        f"{stage.capitalize()}, forward and backward ran, {dtype_name(dtype)}.",
                        f"The {name} are others afterwards: {_first_change(before, given)}.",
                    )


def _first_change(before: dict[str, Tensor], after: dict[str, Tensor]) -> str:
    """The first row of the changed inputs, before and after, in words."""
    for name, tensor in after.items():
        if tensor.shape != before[name].shape:
            return f"the shape was {tuple(before[name].shape)}, and is {tuple(tensor.shape)}"
        rows = (tensor != before[name]).reshape(len(tensor), -1).any(dim=1).nonzero()
        if len(rows):
            row = int(rows[0])
            old, new = (t.detach()[row].reshape(-1)[:3].tolist() for t in (before[name], tensor))
            return f"row {row} began with {old}, and does with {new}"
    return "in their NaN"


@check(
    "random",
    "random numbers and the clock do not change its value",
    warned=LIBRARY,
    declarable=True,
    why="Noise in the value is noise in each step. torch's generator also draws the backbone's "
    "dropout, so a draw more changes the rest of the run. A checkpoint does not keep the state of "
    "numpy, of Python's random or of the clock: a run that continues from it ends elsewhere.",
    fix="Take the draw out of `compute`. What is drawn once belongs in __init__, in a buffer. A "
    "loss that samples pairs or triplets draws by torch's global generator, and declares that.",
)
def random(subject: Subject) -> None:
    did = "New losses got the same batch. Before the call, "
    first, again = _call(subject), _call(subject)
    if not _close(again.value, first.value):
        raise Broken(
            f"{did}the generators of torch, numpy and Python were set to the same seeds.",
            f"The value is {first.value:.7g}, and {again.value:.7g} then: it draws by a generator "
            "without a seed, reads the clock, or counts in a global variable.",
            excusable=False,
        )
    for source, change in SOURCES.items():
        other = _call(subject, **change)
        if "seconds" not in change and other.drawn == first.drawn:
            raise Broken(
                f"{did}{source} had another seed.",
                "What is drawn after the call is the same: the loss sets the seed, for all others "
                "who draw too.",
                excusable=False,
            )
        if _close(other.value, first.value):
            continue
        saw = f"The value is {first.value:.7g}, and {other.value:.7g} then."
        gradients = first.gradient.flatten(), other.gradient.flatten()
        scales = functional.cosine_similarity(*gradients, dim=0) > 1 - 1e-9
        if scales:
            saw += " The gradients have one direction: what is drawn samples no pairs, it scales."
        sampled = "torch_seed" in change and not scales
        raise Broken(f"{did}{source} was changed, and nothing else.", saw, excusable=sampled)


class _Called(NamedTuple):
    value: Tensor
    gradient: Tensor
    """(N, D)."""
    drawn: tuple[float, float, float]
    """What each global generator gives after the call."""


def _call(
    subject: Subject,
    torch_seed: int = 1,
    numpy_seed: int = 1,
    python_seed: int = 1,
    seconds: float = 1.8e9,
) -> _Called:
    """Call a loss that is made anew, in float64, by these seeds and at this time."""
    _seed_others(0, 0)
    loss, (embeddings, labels) = subject.prepared().double(), batch()
    _seed_others(numpy_seed, python_seed)
    embeddings = embeddings.double().requires_grad_()
    with _clock_at(seconds):
        value = value_of(loss, embeddings, labels, torch_seed)
    drawn = float(torch.rand(())), np.random.random(), python_random.random()  # noqa: NPY002
    (gradient,) = torch.autograd.grad(value, embeddings, materialize_grads=True)
    return _Called(value.detach(), gradient, drawn)


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)


def _seed_others(numpy_seed: int, python_seed: int) -> None:
    np.random.seed(numpy_seed)  # noqa: NPY002 - the loss may draw by this very generator
    python_random.seed(python_seed)


@contextmanager
def _clock_at(seconds: float) -> Iterator[None]:
    """Let the clocks of the module `time` stand at this time."""
    with ExitStack() as stack:
        for clock in CLOCKS:
            stack.enter_context(mock.patch.object(time, clock, return_value=seconds))
            nanoseconds = mock.patch.object(time, f"{clock}_ns", return_value=int(seconds * 1e9))
            stack.enter_context(nanoseconds)
        yield
