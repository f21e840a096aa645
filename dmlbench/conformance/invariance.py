"""Checks that the order of a batch, the numbers of classes and the lengths do not matter."""

from __future__ import annotations

import torch
from torch import Tensor

from dmlbench.conformance.check import Broken, check
from dmlbench.conformance.subject import C, N, Subject, batch, value_and_gradient, value_of

LIBRARY = frozenset({"library"})


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
    larger = subject.create(num_classes=C + 1).state_dict()
    value = value_of(loss, embeddings.double(), labels)
    number = torch.randperm(C, generator=torch.Generator().manual_seed(3))
    state = {
        key: _renumbered(entry, larger[key], number.argsort()) if torch.is_tensor(entry) else entry
        for key, entry in loss.state_dict().items()
    }
    loss.load_state_dict(state)
    renumbered = value_of(loss, embeddings.double(), number[labels])
    if not torch.isclose(renumbered, value, rtol=1e-6, atol=1e-9):
        raise Broken(
            "The classes got other numbers: in the labels, and in those rows of the loss's state "
            "that belong to classes.",
            f"The value is {value:.9g}, but {renumbered:.9g} by the other numbers.",
        )


def _renumbered(entry: Tensor, larger: Tensor, order: Tensor) -> Tensor:
    """An entry of the state with the rows that belong to classes in another order.

    A dimension belongs to classes if it is longer in `larger`, the entry for one class more. If a
    class has several rows, they follow each other.
    """
    for dim, (size, larger_size) in enumerate(zip(entry.shape, larger.shape, strict=True)):
        if size != larger_size and size % C == 0:
            rows = entry.unflatten(dim, (C, size // C)).index_select(dim, order)
            entry = rows.flatten(dim, dim + 1)
    return entry


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
