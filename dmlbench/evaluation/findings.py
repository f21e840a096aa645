"""What speaks against the scores of a run: findings, each with a severity from 0 to 3.

0 is a note, 1 asks for a look, 2 gives a reason to doubt, and 3 says: do not use. docs/quality.md
describes them all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmlbench.evaluation.leaks import WITHOUT_LEAKS, Leaks
from dmlbench.utils.text import count_of

LOW_RANK = ((2, 2.0, 0.05), (1, 3.0, 0.15))
"""(severity, rank, share): an effective rank below the rank, or below this share of the dimension
or of the number of classes, whichever is smaller."""
SMALL_SPREAD = ((3, 1e-5), (2, 1e-4), (1, 1e-2))
"""(severity, spread): below the first one, the rounding of float32 decides about neighbours."""
MANY_LEAKS = 0.01
"""From this share of the test images on, near-duplicates give a reason to doubt."""
MANY_PRETRAINED = 0.1
"""From this share of the test classes on, pretraining classes give a reason to doubt."""
MAX_NAMES = 5
"""Names of classes that a message holds."""
BLOCK = 8192
"""Vectors that are in memory in float64 at once."""


class Finding(NamedTuple):
    severity: int
    name: str
    message: str


class Shape(NamedTuple):
    """How embeddings fill their space."""

    dim: int
    effective_rank: float
    """From 1 (a line) to `dim` (all directions alike)."""
    spread: float
    """The mean squared distance of the vectors from their mean: from 0 (all are the same) to 1."""


def embedding_shape(vectors: NDArray[np.floating]) -> Shape:
    """The shape of vectors (N, D) of length 1, or of length 1 at most.

    The effective rank is the exponential of the entropy of the singular values, scaled to the sum
    1. Sources: Roy, Vetterli: The effective rank, EUSIPCO 2007, equation 4; Garrido et al.: RankMe,
    ICML 2023, which takes it of embeddings.

    >>> shape = embedding_shape(np.eye(4)[[0, 1, 2, 3, 0, 1, 2, 3]])
    >>> round(shape.effective_rank, 6), round(shape.spread, 6)
    (4.0, 0.75)
    """
    count, dim = vectors.shape
    products, total = np.zeros((dim, dim)), np.zeros(dim)
    for start in range(0, count, BLOCK):
        block = vectors[start : start + BLOCK].astype(np.float64)
        products += block.T @ block
        total += block.sum(axis=0)
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(products), 0.0))
    shares = singular[singular > 0] / singular.sum()
    mean = total / count
    return Shape(
        dim,
        float(np.exp(-(shares * np.log(shares)).sum())),
        float(max(0.0, np.trace(products) / count - mean @ mean)),
    )


def find_in_shape(shape: Shape, classes: int) -> Iterator[Finding]:
    """The findings about embeddings that a loss has made.

    Args:
        classes: the number of test classes.
    """
    most = min(shape.dim, classes)
    for severity, least, share in LOW_RANK:
        limit = min(max(least, share * most), 0.8 * most)  # few directions can be full, too
        if shape.effective_rank < limit:
            yield Finding(
                severity,
                "low effective rank",
                f"the embeddings use {shape.effective_rank:.1f} of {shape.dim} dimensions "
                f"(effective rank; below {limit:.3g} it is low for {count_of(classes, 'class')})",
            )
            break
    for severity, spread in SMALL_SPREAD:
        if shape.spread < spread:
            yield Finding(
                severity,
                "small spread",
                f"the embeddings are nearly one vector: their spread is {shape.spread:.2g}, and "
                f"below {spread:g} it is small",
            )
            break


def find_in_leaks(leaks: Leaks | None, is_scored_without: bool) -> Iterator[Finding]:
    """The findings about near-duplicates.

    Args:
        leaks: None if nobody has searched.
        is_scored_without: whether the scores without these images are there.
    """
    if leaks is None:
        yield Finding(
            1,
            "near-duplicates not searched",
            "nobody has looked whether test images are near-duplicates of training images, as the "
            "folder of the packed images cannot be written: ask its owner for `dmlbench data "
            "duplicates`",
        )
    elif leaked := len(leaks.ids):
        share = leaked / leaks.test_images
        where = f"see the scores {WITHOUT_LEAKS}" if is_scored_without else "too few are left"
        yield Finding(
            2 if share >= MANY_LEAKS else 1,
            "near-duplicates",
            f"{leaked:,} of {count_of(leaks.test_images, 'test image')} ({share:.2%}) are "
            f"near-duplicates of training images; {where}",
        )


def find_pretraining(
    weights: str, subsets: Collection[str], classes: int, matches: Mapping[str, str]
) -> Finding | None:
    """The finding about the classes of the pretraining.

    Args:
        weights: the weights that the model starts from.
        subsets: the sets of classes that they have been trained on; empty if they are not known.
        classes: the number of test classes.
        matches: test class that is a class of the pretraining -> that class.
    """
    if not subsets:
        return Finding(
            0,
            "pretraining not known",
            f"it is not known which classes {weights} has been trained on: test classes may be "
            "among them",
        )
    if not matches:
        return None
    names = [f"{name} ({other})" for name, other in matches.items()]
    more = f", and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return Finding(
        2 if len(matches) >= MANY_PRETRAINED * classes else 1,
        "pretraining classes",
        f"{len(matches)} of {count_of(classes, 'test class')} have the name of a class of the "
        f"pretraining of {weights}: {'; '.join(names[:MAX_NAMES])}{more}",
    )
