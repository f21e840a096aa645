"""Does a loss fit the classes, the embedding and the batches of a study? Known before any job.

Another process creates it as a training would, since this one does not import torch:
`python -m dmlbench.losses._trial` reads questions as JSON.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import shorten
from traceback import extract_tb
from typing import Any, NamedTuple

from dmlbench.losses._catalogue import loss_module
from dmlbench.utils.discovery import find_problems, versions
from dmlbench.utils.fingerprint import code_digest
from dmlbench.utils.text import short_repr

MAKES_NUMBERS = False
SIGNATURE = (
    "def __init__(self, num_classes: int, embedding_dim: int, parents: Tensor | None = None, *, "
    "margin: float = 0.1)"
)
MAX_REASON = 200
"""Characters of another library's error that a message shows."""
LARGEST_BATCH = 512
"""Images of the largest batch on which a loss is tried: some take the cube of this as memory."""


class Question(NamedTuple):
    """A loss, and what a training gives to it."""

    type: str
    options: Mapping[str, Any]
    dim: int
    classes: int
    images: int
    """Images of all classes together."""
    parents: list[list[int]] | None
    """Super-class of each class at each level, the nearest level first."""
    batch_size: int
    images_per_class: int | None


def loss_problems(questions: Iterable[Question]) -> list[str]:
    """Why each loss cannot be trained; empty if it can.

    A text that begins with `recipe.` is a problem of the recipe.
    """
    asked = list(questions)
    installed = versions("torch", "pytorch-metric-learning", "faiss-cpu", "faiss-gpu-cu12")
    facts = [[installed, code_digest(loss_module(q.type)), q] for q in asked]
    return find_problems("loss", __name__, asked, facts)


def explain(
    error: BaseException, sizes: Mapping[str, int], options: Mapping[str, Any], is_own: bool
) -> str:
    """Why a loss cannot be created with `sizes` and `options`.

    Args:
        error: what its constructor raised.
        is_own: the user wrote the loss, and may have to change its constructor.
    """
    given = ", ".join(f"{name}={value}" for name, value in sizes.items())
    shown = ", ".join(f"{name!r}: {short_repr(value)}" for name, value in options.items())
    hint = ""
    if is_own:
        inside = [frame for frame in extract_tb(error.__traceback__) if frame.name == "__init__"]
        if inside:  # the constructor took the arguments, and failed later
            hint = (
                f", in line {inside[0].lineno} of {Path(inside[0].filename).name}: {inside[0].line}"
            )
        elif isinstance(error, TypeError):
            hint = f". Its constructor must be as here, options after the star: {SIGNATURE}"
    return f"it cannot be created with {given} and options {{{shown}}}: {_reason(error)}{hint}"


def _reason(error: BaseException) -> str:
    return shorten(f"{type(error).__name__}: {error}".rstrip(": "), MAX_REASON)


def _problem(question: Question) -> str:
    import numpy as np
    import torch

    from dmlbench.losses import create_loss
    from dmlbench.losses.base import Loss

    torch.manual_seed(0)
    is_foreign = "." in question.type  # no loss of this package
    parents = None if question.parents is None else torch.tensor(question.parents)
    sizes = {"num_classes": question.classes, "embedding_dim": question.dim}
    try:
        loss = create_loss(question.type, **sizes, parents=parents, **question.options)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        if not is_foreign and isinstance(error, ValueError):
            return str(error)  # written for the user
        is_own = is_foreign and not question.type.startswith("pml.")
        return explain(error, sizes, question.options, is_own)
    cls = type(loss)
    if cls.batches is not Loss.batches:
        if is_foreign:
            return ""  # it may look at embeddings or at numbers of images that are not known here
        labels = np.sort(np.arange(question.images) % question.classes)
        try:
            loss.batches(labels, 1, question.batch_size, 0, 0)
        except ValueError as error:
            return f"{error}. Take another recipe.batch_size"
        return ""
    if problem := _unfit_batch(question):
        return problem
    if is_foreign and cls.refresh is Loss.refresh and question.batch_size <= LARGEST_BATCH:
        return _failing_step(question, loss)
    return ""


def _unfit_batch(question: Question) -> str:
    """The problem of the recipe's sampler, which draws classes and some images of each."""
    if question.images_per_class is None:
        return ""
    wanted = question.batch_size // question.images_per_class
    if wanted <= question.classes:
        return ""
    return (
        f"recipe.batch_size: {question.batch_size} / images_per_class "
        f"{question.images_per_class} = {wanted} classes a batch, and there are "
        f"{question.classes} to train on. Take batch_size: "
        f"{question.classes * question.images_per_class} or less, or images_per_class: null"
    )


def _failing_step(question: Question, loss: Any) -> str:
    """The problem of one step with random embeddings."""
    import torch

    size = question.batch_size
    embeddings = torch.randn(size, question.dim, requires_grad=True)
    labels = torch.arange(size) // (question.images_per_class or 2) % question.classes
    try:
        value = loss(embeddings, labels)
        if not isinstance(value, torch.Tensor) or value.shape != ():
            shown = tuple(value.shape) if isinstance(value, torch.Tensor) else value
            return f"compute must return one number, a tensor of shape (), and gives {shown!r}"
        value.backward()
    except (Exception, SystemExit) as error:
        return (
            f"its first step fails, with embeddings of shape ({size}, {question.dim}) and options "
            f"{dict(question.options)}: {_reason(error)}"
        )
    return ""


def main() -> None:
    """Create each loss, and print the list of their problems."""
    warnings.filterwarnings("ignore")
    questions = [Question(*question) for question in json.load(sys.stdin)]
    answer = json.dumps([_problem(question) for question in questions])
    print(answer)


if __name__ == "__main__":
    main()
