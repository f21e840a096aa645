"""Checks that the order of a batch, the numbers of classes and the lengths do not matter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, is_tensor

from dmlbench.conformance.check import LIBRARY, Broken, check
from dmlbench.conformance.subject import C, N, Subject, batch, value_and_gradient, value_of
from dmlbench.losses.base import Loss


@check(
    "order",
    "the order of the images in a batch does not matter",
    warned=LIBRARY,
    declarable=True,
    why="A batch is a set. A loss that reads the order counts some pairs twice and others never, "
    "and its results change with the sampler's habits.",
    fix="The cause is pairs by place (row 2i with 2i+1, the first of a class), a reshape to (P, K) "
    "that only fits a sorted batch, a mask that is not moved with its rows, or random draws.",
)
def order(subject: Subject) -> None:
    loss, (embeddings, labels) = subject.prepared().double(), batch()
    shuffle = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    value, gradient = value_and_gradient(loss, embeddings.double(), labels)
    shuffled_value, shuffled_gradient = value_and_gradient(
        loss, embeddings.double()[shuffle], labels[shuffle]
    )
    did = "The same batch was given in another order, in float64."
    if not torch.isclose(shuffled_value, value, rtol=1e-10, atol=1e-12):
        raise Broken(did, f"The value is {value:.9g}, but {shuffled_value:.9g} in the other order.")
    if not torch.allclose(shuffled_gradient, gradient[shuffle], rtol=1e-8, atol=1e-11):
        raise Broken(did, f"The value stays {value:.6g}, but rows have other gradients.")


@check(
    "numbering",
    "the numbers of the classes do not matter",
    warned=LIBRARY,
    declarable=True,
    why="Numbers are names. If they enter the arithmetic, classes with similar numbers are treated "
    "alike, and the result depends on how a data set was sorted.",
    fix="The cause is labels that are added, compared by <, or used as an index into something in "
    "another order than the classes; or names that were sorted as text ('10' before '2').",
)
def numbering(subject: Subject) -> None:
    loss, (embeddings, labels) = subject.prepared().double(), batch()
    value = value_of(loss, embeddings.double(), labels)
    number = torch.randperm(C, generator=torch.Generator().manual_seed(3))
    loss.load_state_dict(renumbered_state(loss, subject.create(C + 1), number))
    renumbered = value_of(loss, embeddings.double(), number[labels])
    if not torch.isclose(renumbered, value, rtol=1e-6, atol=1e-9):
        raise Broken(
            "The classes got other numbers: in the labels, and in those rows of the loss's state "
            "that belong to classes.",
            f"The value is {value:.9g}, but {renumbered:.9g} by the other numbers.",
        )


def renumbered_state(loss: Loss, larger: Loss, number: Tensor) -> dict[str, Any]:
    """The state of `loss` if class c had the number `number[c]`, a permutation (C,).

    A dimension of its tensors belongs to classes if it is longer in `larger`, a loss for one class
    more. If a class has several rows, they follow each other.
    """
    order, larger_state = number.argsort(), larger.state_dict()
    state = {}
    for key, entry in loss.state_dict().items():
        sizes = zip(entry.shape, larger_state[key].shape, strict=True) if is_tensor(entry) else ()
        for dim, (size, larger_size) in enumerate(sizes):
            if size != larger_size and size % len(number) == 0:
                rows = entry.unflatten(dim, (len(number), -1)).index_select(dim, order)
                entry = rows.flatten(dim, dim + 1)
        state[key] = entry
    return state


@check(
    "length",
    "the length of an embedding does not matter",
    warned=LIBRARY,
    declarable=True,
    why="Retrieval compares directions. A loss that reads lengths can be lowered by growing or "
    "shrinking them, which no score shows.",
    fix="Begin `compute` with dmlbench.losses.base.unit_length(embeddings).",
)
def length(subject: Subject) -> None:
    loss, (embeddings, labels) = subject.prepared(), batch()
    embeddings = embeddings.double()
    random = torch.Generator().manual_seed(3)
    scale = torch.rand(N, 1, generator=random, dtype=torch.float64) + 0.5
    value = value_of(loss, embeddings, labels)
    scaled = value_of(loss, scale * embeddings, labels)
    if not torch.isclose(scaled, value, rtol=1e-7, atol=1e-9):
        raise Broken(
            "Each embedding was made longer or shorter, by a factor of 0.5 to 1.5.",
            f"The value was {value:.9g}, and is {scaled:.9g} then.",
        )
