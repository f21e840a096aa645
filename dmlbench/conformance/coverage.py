"""Checks that a loss reads all of what it is given: each dimension, and labels of any size."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dmlbench.conformance.check import LIBRARY, Broken, check
from dmlbench.conformance.invariance import renumbered_state
from dmlbench.conformance.subject import C, D, Subject, batch, draw, value_of

WIDE = 2520  # dimensions: more than any model here gives, and a multiple of 1 to 10
TRIED = 32  # dimensions that are tried of so many
NOISES = (1.5, 3.0, 0.7)  # of the batches; a margin may leave out all pairs of one
CLASSES = (70_000, 5_000, 2_000)  # numbers of classes to try: as many as the loss can hold
LARGEST, OPERATORS = 5e7, 5e4  # numbers of a tensor, and operators of a call, that are no burden


@check(
    "dimensions",
    f"each dimension of an embedding matters, of {D} and of {WIDE}",
    warned=LIBRARY,
    why="Dimensions that the loss does not read stay random, but retrieval compares them all: they "
    "are noise in each distance, and the scores of a wider embedding fall.",
    fix="The cause is a slice of fixed size (embeddings[:, :64]), a step ([:, ::2]), a mask, or a "
    "dimension written as a number. Take the whole row: embeddings.shape[1] is its size.",
)
def dimensions(subject: Subject) -> str:
    sizes = [D, subject.dimension(WIDE)]
    for size in sizes:
        tried = _dimensions_to_try(size)
        if unread := _unread(subject, size, tried):
            shown = ", ".join(map(str, unread[:6])) + (", ..." if len(unread) > 6 else "")
            raise Broken(
                f"Embeddings of {size} dimensions got the other sign in one dimension of every "
                f"third image, which keeps their lengths; in {len(tried)} dimensions, one by one.",
                f"The value stays exactly the same for {len(unread)} of them: {shown}.",
            )
    return f"{sizes[0]} of {sizes[0]}, and {TRIED} of {sizes[1]} that were tried"


def _dimensions_to_try(size: int) -> list[int]:
    """All dimensions if they are few; else the first, the last, and others at random."""
    if size <= TRIED:
        return list(range(size))
    others = torch.randperm(size - 2, generator=torch.Generator().manual_seed(0)) + 1
    return [0, *sorted(others[: TRIED - 2].tolist()), size - 1]


@torch.no_grad()
def _unread(subject: Subject, size: int, tried: list[int]) -> list[int]:
    """Those of the dimensions `tried` on which the value does not depend."""
    loss = subject.create(embedding_dim=size)
    unread = tried
    for seed, noise in enumerate(NOISES):
        embeddings, labels = draw(4, 4, size, noise, seed)
        embeddings = functional.normalize(embeddings)
        value = float(value_of(loss, embeddings, labels, seed))
        still = []
        for dimension in unread:
            moved = embeddings.clone()
            moved[::3, dimension] *= -1
            change = abs(float(value_of(loss, moved, labels, seed)) - value)
            if change <= 1e-11 * abs(value):
                still.append(dimension)
        unread = still
    return unread


@check(
    "many_classes",
    f"labels of {CLASSES[0]:,} classes are told apart",
    warned=LIBRARY,
    why="Data sets have up to tens of thousands of classes. If two labels become one number, their "
    "images are pulled together as if they were one class, and nothing else shows it.",
    fix="Keep labels int64: take away .to(torch.uint8), .to(torch.int16), .half(), .bfloat16(), "
    "% 256, and numpy of a small type. uint8 holds 256 numbers, bfloat16 tells them apart up to "
    "256, float16 up to 2,048, int16 up to 32,767.",
)
@torch.no_grad()
def many_classes(subject: Subject) -> str:
    classes = _affordable_classes(subject)
    embeddings, labels = (tensor[: 2 * C] for tensor in batch())
    loss, other, larger = (subject.create(size) for size in (classes, classes, classes + 1))
    value = value_of(loss, embeddings, labels)

    def renumbered(numbers: list[int]) -> float:
        """The value if the first classes and those with `numbers` changed places."""
        number, places = torch.arange(classes), torch.tensor(numbers)
        number[:C], number[places] = places, torch.arange(C)
        other.load_state_dict(renumbered_state(loss, larger, number))
        return float(value_of(other, embeddings, number[labels]))

    low, numbers = renumbered(list(range(C, 2 * C))), _distant_numbers(classes)
    if not math.isclose(low, value, rel_tol=1e-4):
        return "not judged: numbers of classes enter the value, see the check `numbering`"
    far = renumbered(numbers)
    if not math.isclose(far, low, rel_tol=1e-4):
        raise Broken(
            f"The classes 0 to {C - 1} of {classes:,} got the numbers "
            f"{', '.join(map(str, numbers))}, in the labels and in the loss's state.",
            f"The value is {far:.6g}, but {low:.6g} by the numbers {C} to {2 * C - 1}.",
        )
    return f"of {classes:,} classes"


def _distant_numbers(classes: int) -> list[int]:
    """C numbers of classes, ascending, that collide if they are held in too few bits.

    The first differs from others by powers of 2 and of 10, as a remainder would. The largest are
    neighbours, which a floating-point number of few digits rounds to one.
    """
    power_of_2 = 2 ** int(math.log2(classes - C - 2))
    power_of_10 = 10 ** int(math.log10(classes - C - 2))
    others = {C + power_of_2, C + power_of_2 + 1, C + power_of_10, classes - 2, classes - 1}
    return sorted({C, C + 256} | others)


def _affordable_classes(subject: Subject) -> int:
    """The largest of CLASSES at which neither tensors nor loops of the loss are too large.

    Two smaller numbers of classes show how both grow: a matrix (C, C) grows fourfold.
    """
    few, more = _Work.of(subject, 1000), _Work.of(subject, 2000)
    for classes in CLASSES:
        doublings = math.log2(classes / 2000)
        largest = more.largest * (more.largest / few.largest) ** doublings
        operators = more.operators * (more.operators / few.operators) ** doublings
        if largest <= LARGEST and operators <= OPERATORS:
            return classes
    return CLASSES[-1]


class _Work(TorchDispatchMode):
    """Notes the numbers in the largest tensor, and counts operators."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.operators = 1

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.largest = max([self.largest, *sizes])
        self.operators += 1
        return result

    @classmethod
    def of(cls, subject: Subject, classes: int) -> _Work:
        """The work of creating a loss for `classes` classes, and of one call."""
        with cls() as work:
            value_of(subject.create(classes), *batch())
        return work
