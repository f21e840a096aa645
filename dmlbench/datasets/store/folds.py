"""Folds of the training classes: each is held out once, and no class is on both sides.

All functions are pure: equal arguments give equal folds, with every version of every library.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from dmlbench.datasets.store.format import VALIDATION
from dmlbench.datasets.store.reader import Split


def draw_folds(split: Split, folds: int, seed: int) -> list[NDArray[np.int64]]:
    """Draw the classes of each fold, evenly within each super-class of the nearest level.

    The numbers of classes of two folds differ by at most 1, and so do those of each super-class. So
    a super-class with as many classes as there are folds, or more, is in every fold.

    Returns:
        The held-out classes of each fold, ascending.

    >>> split = Split(np.arange(6), np.arange(6), list("abcdef"), np.array([[0, 0, 0, 1, 1, 1]]))
    >>> [fold.tolist() for fold in draw_folds(split, folds=3, seed=0)]
    [[0, 5], [2, 3], [1, 4]]
    """
    names = split.class_names
    _check(len(names), folds)
    parents = [0] * len(names) if split.parents is None else split.parents[0].tolist()
    # digests give an arbitrary order that no version of a library can change
    drawn = sorted(range(len(names)), key=lambda c: sha256(f"{seed}:{names[c]}".encode()).digest())
    members: dict[int, list[int]] = {}
    for place in drawn:
        members.setdefault(parents[place], []).append(place)
    dealt = [place for group in members.values() for place in group]
    return [np.sort(np.array(dealt[first::folds])) for first in range(folds)]


def cut_folds(split: Split, folds: int) -> list[NDArray[np.int64]]:
    """Cut the classes, in their order, into blocks of equal size; the first ones may have one more.

    As Musgrave, Belongie, Lim: A Metric Learning Reality Check, ECCV 2020, section 3.2.

    Returns:
        The held-out classes of each fold, ascending.

    >>> split = Split(np.arange(5), np.arange(5), list("abcde"), None)
    >>> [fold.tolist() for fold in cut_folds(split, folds=2)]
    [[0, 1, 2], [3, 4]]
    """
    _check(len(split.class_names), folds)
    return np.array_split(np.arange(len(split.class_names)), folds)


def published_fold(split: Split, is_held_out: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The classes that the data set itself holds out.

    Args:
        is_held_out: (N,) whether each image of `split` is in the validation part.

    Returns:
        These classes, ascending.

    Raises:
        ValueError: there are none, a class is in both parts, or a part has fewer than two classes.
    """
    held_out = np.unique(split.labels[is_held_out])
    if not len(held_out):
        raise ValueError("it has no validation part")
    both = np.intersect1d(held_out, split.labels[~is_held_out])
    if len(both):
        raise ValueError(f"class {split.class_names[both[0]]} is in both train and validation")
    for name, count in (
        ("train", len(split.class_names) - len(held_out)),
        (VALIDATION, len(held_out)),
    ):
        if count < 2:
            raise ValueError(f"its part {name} has fewer than 2 classes")
    return held_out


def hold_out(split: Split, classes: Sequence[int] | NDArray[np.int64]) -> tuple[Split, Split]:
    """`split` without the images of `classes`, and those images alone; both have dense labels.

    >>> split = Split(np.array([3, 5, 8]), np.array([0, 1, 2]), ["a", "b", "c"], None)
    >>> train, validation = hold_out(split, [1])
    >>> train.rows.tolist(), train.labels.tolist(), train.class_names
    ([3, 8], [0, 1], ['a', 'c'])
    >>> validation.rows.tolist(), validation.labels.tolist(), validation.class_names
    ([5], [0], ['b'])
    """
    every = np.arange(len(split.class_names))
    return _of_classes(split, np.setdiff1d(every, classes)), _of_classes(split, np.unique(classes))


def _of_classes(split: Split, classes: NDArray[np.int64]) -> Split:
    """The images of `classes`, which are ascending."""
    chosen = np.isin(split.labels, classes)
    parents = None
    if split.parents is not None:
        levels = [np.unique(level[classes], return_inverse=True)[1] for level in split.parents]
        parents = np.stack(levels)
    return Split(
        split.rows[chosen],
        np.searchsorted(classes, split.labels[chosen]),
        [split.class_names[place] for place in classes],
        parents,
    )


def _check(classes: int, folds: int) -> None:
    """Make sure that each fold has two classes: with one, every ranking is right.

    Raises:
        ValueError: with the most folds that are possible.
    """
    if folds < 2 or classes < 2 * folds:
        most = classes // 2
        fix = f"Take {most} folds or fewer" if most > 1 else "It cannot be cut into folds"
        raise ValueError(
            f"{folds} folds of {classes} training classes: each needs 2 classes or more. {fix}"
        )
