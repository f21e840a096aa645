"""The check that a loss gives the same value at each call, and that no call changes its state."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections import deque
from itertools import islice
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dmlbench.conformance.check import LIBRARY, Broken, check
from dmlbench.conformance.subject import Subject, batch, draw, same, value_of
from dmlbench.losses.base import Loss

CALLS = 140  # more than 100 and 128, at which a count may begin to act
MORE_CALLS = 1_030  # if something in Python changes from call to call
JUMPS = (10**4, 10**5, 10**6)  # what a count may be later in a training
DEPTH, ENTRIES = 4, 1_000  # of containers in containers, and of each, that are compared


@check(
    "repeats",
    "the same batch has the same value at each call, and no call changes the state",
    warned=LIBRARY,
    declarable=True,
    why="A value that depends on how often the loss was called is another loss after some steps: "
    "it follows no schedule of the recipe, and a resumed training begins to count again.",
    fix="Change parameters and buffers in `refresh`, which is called before each epoch, and count "
    "epochs there in a buffer. Take counters, caches and random generators out of `compute`.",
)
def repeats(subject: Subject) -> str:
    for stage, loss in subject.stages():
        embeddings, labels = batch()
        before = {key: copy.deepcopy(entry) for key, entry in loss.state_dict().items()}
        value_of(loss, embeddings.requires_grad_(), labels).backward()
        for key, entry in loss.state_dict().items():
            if not same(entry, before[key]):
                did = f"{stage.capitalize()}, forward and backward ran once."
                raise Broken(did, f"'{key}' of its state has other values afterwards.")
    return f"{_call_again(subject.prepared()):,} calls"


def _call_again(loss: Loss) -> int:
    """Call the loss with one batch until its state says that no call will differ.

    Returns:
        how often it was called, with the same value.
    """
    embeddings, labels = draw(4, 2)
    embeddings = embeddings.float().requires_grad_()
    did = "It was called with one batch again and again, torch's generator set anew each time."
    first = value_of(loss, embeddings, labels)
    before = _memory(loss)
    calls, last = 1, CALLS
    while calls < last:
        value, calls = value_of(loss, embeddings, labels), calls + 1
        if not torch.isclose(value, first, equal_nan=True):
            seen = ", ".join(_changed(loss, before))
            seen = f" What changes with the calls, it seems: {seen}." if seen else ""
            raise Broken(did, f"The value is {first:.7g}, and {value:.7g} at call {calls}.{seen}")
        if calls == CALLS and _changed(loss, before):
            last = MORE_CALLS
    for name, (holder, attribute, now) in _changed(loss, before).items():
        for jump in JUMPS if type(now) in (int, float) else ():
            setattr(holder, attribute, jump)
            value = value_of(loss, embeddings, labels)
            setattr(holder, attribute, now)
            if not torch.isclose(value, first, equal_nan=True):
                raise Broken(
                    f"{name} changes with the calls; it was set to {jump:,}.",
                    f"The value is {first:.7g}, and {value:.7g} then.",
                )
    return calls


class _Kept(NamedTuple):
    """Something that Python keeps between calls."""

    holder: Any
    attribute: str
    trace: Any
    """Its value in plain objects, which can be compared."""


def _memory(loss: Loss) -> dict[str, _Kept]:
    """What the loss keeps from call to call: name -> where and what it is.

    It is in attributes of the loss, its modules and its class, and in global names of its file.
    """
    cls = type(loss)
    holders = {f"self.{path}." if path else "self.": m for path, m in loss.named_modules()}
    holders |= {f"{cls.__name__}.": cls, "": sys.modules[cls.__module__]}
    return {
        f"{prefix}{attribute}": _Kept(holder, attribute, _trace(value))
        for prefix, holder in holders.items()
        for attribute, value in list(vars(holder).items())
        if not attribute.startswith("__")
    }


def _changed(loss: Loss, before: dict[str, _Kept]) -> dict[str, _Kept]:
    """The part of its memory that is not as it was `before`."""
    return {name: kept for name, kept in _memory(loss).items() if kept != before.get(name)}


def _trace(value: Any, depth: int = 0) -> Any:
    """A value in plain objects: equal for equal values, also of iterators and closures."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, type | ModuleType | nn.Module) or depth == DEPTH:
        return id(value)
    if isinstance(value, Tensor):
        return value.detach().flatten()[:ENTRIES].tolist()
    if isinstance(value, np.ndarray):
        return value.flatten()[:ENTRIES].tolist()
    if isinstance(value, FunctionType):
        value = [vars(value), value.__defaults__, value.__kwdefaults__, *_enclosed(value)]
    elif hasattr(value, "__dict__"):
        value = vars(value)
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [len(value), *(_trace(item, depth + 1) for item in islice(value, ENTRIES))]
    return repr(value)  # shows where an itertools.count stands


def _enclosed(function: FunctionType) -> list[Any]:
    """The values that a function has from the functions around it."""
    values = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # a cell may be empty
            values.append(cell.cell_contents)
    return values
