"""Checks of degenerate batches, which a sampler draws now and then: all stays finite."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dmlbench.conformance.arithmetic import describe_gradient, dtype_name
from dmlbench.conformance.check import Broken, check
from dmlbench.conformance.subject import C, N, Subject, batch

PAIRS = (
    "A mean over no pairs is 0 / 0, the maximum of an empty row raises or is -inf. Divide by "
    "count.clamp(min=1), mask with torch.where or masked_fill, and give such a part 0."
)
ROOTS = (
    "The gradient of a root at 0 is infinite, and 0 x inf is NaN even where torch.where takes "
    "the other branch. Guard the root's argument: torch.where(x > 0, x, 1).sqrt(), and mask "
    "after it; dmlbench.losses.base has distances() and unit_length()."
)
ONE_STEP = "one such batch is one step of NaN, and the training is over."


def check_finite(
    subject: Subject, description: str, degenerate: Callable[[Tensor, Tensor], tuple]
) -> None:
    """Raise Broken if the value or a gradient of a batch is not finite.

    `degenerate` makes the batch from embeddings (N, D) and labels (N,) of an ordinary one.
    """
    for stage, loss in subject.stages():
        for dtype in (torch.float32, torch.bfloat16):
            embeddings, labels = degenerate(*batch())
            embeddings = embeddings.to(dtype).clone().requires_grad_()
            did = f"{stage.capitalize()}, it was given {description}, {dtype_name(dtype)}."
            loss.zero_grad()
            value = loss(embeddings, labels)
            if not value.isfinite():
                raise Broken(did, f"The value is {value:g}.")
            if not value.requires_grad:
                saw = "The value is a constant without a gradient: backward() would raise."
                raise Broken(did, saw)
            value.backward()
            if embeddings.grad is not None and not embeddings.grad.isfinite().all():
                saw = f"The value is {value:.4g}, but {describe_gradient(embeddings.grad)}."
                raise Broken(did, saw)
            for name, parameter in loss.named_parameters():
                if parameter.grad is not None and not parameter.grad.isfinite().all():
                    saw = f"The value is {value:.4g}, but the gradient of '{name}' is no number."
                    raise Broken(did, saw)


@check(
    "no_positives",
    "a batch without two images of a class",
    why=f"Random batches of many classes often hold no pair; {ONE_STEP}",
    fix=PAIRS,
)
def no_positives(subject: Subject) -> None:
    description = f"{C} embeddings of {C} classes, one each"
    check_finite(subject, description, lambda embeddings, labels: (embeddings[:C], labels[:C]))


@check(
    "one_class",
    "a batch of one class, without negatives",
    why=f"A sampler of P x K may draw it from a small data set; {ONE_STEP}",
    fix=PAIRS,
)
def one_class(subject: Subject) -> None:
    description = f"{N} embeddings of one class"
    check_finite(
        subject, description, lambda embeddings, labels: (embeddings, torch.full_like(labels, 2))
    )


@check(
    "duplicates",
    "images that are twice in a batch, of the same class or of two",
    why="A class with too few images for the sampler is drawn with repetition, and data sets hold "
    f"images twice, even in two classes. Their distance is exactly 0; {ONE_STEP}",
    fix=ROOTS,
)
def duplicates(subject: Subject) -> None:
    def repeated(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return embeddings[:5].repeat(4, 1), labels[:5].repeat(4)

    check_finite(subject, "5 images of 5 classes, four times each", repeated)
    check_finite(
        subject,
        "5 embeddings four times each, under labels of several classes",
        lambda embeddings, labels: (embeddings[:5].repeat(4, 1), labels),
    )


@check(
    "one_point",
    "all embeddings of a batch in one point",
    why="A collapsed model gives such embeddings, and many models nearly do so before their first "
    f"step. A loss that fails there cannot repair the model; {ONE_STEP}",
    fix=ROOTS,
)
def one_point(subject: Subject) -> None:
    check_finite(
        subject,
        f"{N} times the same embedding",
        lambda embeddings, labels: (embeddings[:1].expand_as(embeddings), labels),
    )


@check(
    "zero_vectors",
    "embeddings of length 0",
    why="ReLU before the head, or a black image, gives a vector of zeros, which has no direction; "
    + ONE_STEP,
    fix="x / x.norm() is 0 / 0 there, and functional.normalize has gradients of 1e12. Use "
    "dmlbench.losses.base.unit_length, which gives 0 with gradient 0.",
)
def zero_vectors(subject: Subject) -> None:
    def zeroed(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        embeddings[::2] = 0
        return embeddings, labels

    check_finite(subject, "a batch whose every other embedding is 0", zeroed)
