"""What must not matter: order of the batch, numbers of the classes, length of the embeddings."""

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
    may_be_meant=True,
    why="A batch is a set. A loss that reads the order counts some pairs twice and others never, "
    "and its results change with the sampler's habits.",
    fix="Pairs formed by place (row 2i with 2i+1, the first of a class), a reshape to (P, K) that "
    "only fits a sorted batch, a mask that is not moved with its rows, draws.",
)
def order(subject: Subject) -> None:
    loss, (embeddings, labels) = subject.prepared().double(), batch()
    shuffle = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    value, gradient = value_and_gradient(loss, embeddings.double(), labels)
    shuffled, its_gradient = value_and_gradient(loss, embeddings.double()[shuffle], labels[shuffle])
    did = "The same batch was given in another order, in float64."
    if not torch.isclose(shuffled, value, rtol=1e-10, atol=1e-12):
        raise Broken(did, f"The value is {value:.9g}, and {shuffled:.9g} in the other order.")
    if not torch.allclose(its_gradient, gradient[shuffle], rtol=1e-8, atol=1e-11):
        raise Broken(did, f"The value stays {value:.6g}, but rows have other gradients.")


@check(
    "numbering",
    "the numbers of the classes do not matter",
    warned=LIBRARY,
    may_be_meant=True,
    why="Numbers are names. Where they enter the arithmetic, classes with near numbers are treated "
    "alike, and the result depends on how a data set was sorted.",
    fix="Labels that are added, compared by < or used as an index into what has another order than "
    "the classes; names that were sorted as text ('10' before '2').",
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
            "The classes were numbered anew: in the labels, and in the rows of its state that are "
            "of classes.",
            f"The value is {value:.9g}, and {renumbered:.9g} by the other numbers.",
        )


def _renumbered(entry: Tensor, larger: Tensor, order: Tensor) -> Tensor:
    """Its rows of classes in another order: where one class more makes it longer. Of several rows
    a class, those of a class follow each other."""
    for dim, (size, its) in enumerate(zip(entry.shape, larger.shape, strict=True)):
        if size != its and size % C == 0:
            rows = entry.unflatten(dim, (C, size // C)).index_select(dim, order)
            entry = rows.flatten(dim, dim + 1)
    return entry


@check(
    "length",
    "the length of an embedding does not matter",
    warned=LIBRARY,
    may_be_meant=True,
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
            "Each embedding was made longer or shorter, by 0.5 to 1.5.",
            f"The value is {value:.9g}, and {scaled:.9g} then.",
        )
