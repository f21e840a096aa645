"""The check that a loss is a mean: it does not grow with the batch or the number of classes."""

from __future__ import annotations

import math

from torch import Tensor

from dmlbench.conformance.check import LIBRARY, Broken, check
from dmlbench.conformance.subject import Subject, draw, value_and_gradient

FACTOR = 4  # the last batch is so many times as large as the first
POWER = 0.4
"""The power of the batch with which a gradient may grow. The losses here have 0.25 at most, where a
log-sum-exp saturates; a sum over images has 1, over pairs 2, over triplets 3."""
FASTER, NOTABLE = 1.75, 0.2
"""A value that grows by more than NOTABLE of itself may not grow FASTER at the second doubling of
the batch than at the first. A logarithm grows by the same amount again, a sum by twice as much. The
losses here have 1.5 at most."""


@check(
    "growth",
    "more images or more classes do not make it larger, but for a logarithm",
    warned=LIBRARY,
    declarable=True,
    why="A sum over images, pairs or classes gives another length of step to each batch size and "
    "data set. A learning rate and a weight beside another loss then fit one batch size alone, and "
    "large ones diverge.",
    fix="Divide a sum by the number of its terms: .mean(), or (terms * mask).sum() / "
    "mask.sum().clamp(min=1). A sum over classes is divided by how many they are. Do not multiply "
    "by len(labels).",
)
def growth(subject: Subject) -> str:
    few, twice, more = _more_images(subject)
    powers = [_power("images of each class", few, more)]
    first, second = twice.value - few.value, more.value - twice.value
    if second > FASTER * first > 0 and first + second > NOTABLE * abs(few.value):
        raise Broken(
            f"The same images were given {few.images}, {twice.images} and {more.images} at a time, "
            "each of them more often.",
            f"The value is {few.value:.4g}, {twice.value:.4g} and {more.value:.4g}: the second "
            f"doubling adds {second / first:.1f} times as much as the first. A mean adds less, a "
            "logarithm as much, a sum twice as much.",
        )
    powers.append(_power("classes", *_more_classes(subject)))
    return f"the gradient grows as the power {max(0.0, *powers):.1f} of the batch at most"


class _Measured:
    """How large a loss and its gradient are, as a mean over some batches.

    Args:
        results: value and gradient (N, D) for each batch.
    """

    def __init__(self, *results: tuple[Tensor, Tensor]) -> None:
        self.images = len(results[0][1])
        self.value = sum(float(value) for value, _ in results) / len(results)
        self.length = sum(float(g.norm(dim=1).sum()) for _, g in results) / len(results)
        """Sum of the lengths of the rows of the gradient. If all rows come twice, that of a mean
        stays. That of a log-sum-exp stays too, though its value grows."""


def _power(what: str, few: _Measured, more: _Measured) -> float:
    """The power of the batch with which the gradient grows.

    Raises:
        Broken: it is above POWER.
    """
    if not few.length > 0 or not more.length > 0:
        return 0.0  # the check `moves` says so
    power = math.log(more.length / few.length, FACTOR)
    if power > POWER:
        raise Broken(
            f"It was given {few.images} embeddings, and then {more.images}: {FACTOR} times as many "
            f"{what}, of the same kind.",
            f"The value goes from {few.value:.4g} to {more.value:.4g}, and the lengths of the "
            f"embeddings' gradients, added, from {few.length:.4g} to {more.length:.4g}: they grow "
            f"as the power {power:.1f} of the batch. A mean has 0, a sum over images 1, over pairs "
            "2.",
        )
    return power


def _more_images(subject: Subject) -> list[_Measured]:
    """The same images, all of them 2 to 2 x FACTOR times: no chance is in the comparison."""
    loss, (embeddings, labels) = subject.prepared().double(), draw(4, 2)
    return [
        _Measured(value_and_gradient(loss, embeddings.repeat(times, 1), labels.repeat(times)))
        for times in (2, 4, 2 * FACTOR)
    ]


def _more_classes(subject: Subject) -> list[_Measured]:
    """Other images of as many classes as the loss has, and of FACTOR times as many."""
    return [
        _Measured(
            *(
                value_and_gradient(subject.create(classes).double(), *draw(classes, 2, seed=seed))
                for seed in range(2)
            )
        )
        for classes in (16, 16 * FACTOR)
    ]
