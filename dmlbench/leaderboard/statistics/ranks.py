"""Ranks of losses as intervals, and groups of losses that are not separated."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray


def rank_intervals(is_better: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The best and the worst rank that each loss may have.

    A loss is surely behind those that are significantly better, and surely before those that are
    significantly worse. If no pair is separated by mistake, all intervals hold the true ranks (Al
    Mohamad, Goeman and van Zwet, Biometrics 2022).

    Args:
        is_better: (L, L) whether the loss of a row is significantly better than that of a column.

    >>> rank_intervals(np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]], dtype=bool))
    [(1, 2), (1, 2), (3, 3)]
    """
    best = 1 + is_better.sum(axis=0)
    worst = len(is_better) - is_better.sum(axis=1)
    return [(int(low), int(high)) for low, high in zip(best, worst, strict=True)]


def rank_text(interval: tuple[int, int]) -> str:
    """
    >>> rank_text((2, 4)), rank_text((1, 1))
    ('2-4', '1')
    """
    low, high = interval
    return f"{low}" if low == high else f"{low}-{high}"


def tie_groups(is_separated: NDArray[np.bool_], order: Sequence[int]) -> list[list[int]]:
    """Groups of losses of which no two are separated.

    Two losses share a group if and only if they are not separated. A loss may be in several groups:
    A may be tied with B, and B with C, while A and C are separated. Losses that are separated from
    all others have a group of their own.

    Args:
        is_separated: (L, L), symmetric.
        order: the losses, the best first.

    >>> separated = np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]], dtype=bool)
    >>> tie_groups(separated, [0, 1, 2])
    [[0, 1], [1, 2]]
    """
    groups: list[list[int]] = []
    is_covered = is_separated.copy()
    for place, first in enumerate(order):
        for second in order[place + 1 :]:
            if not is_covered[first, second]:
                group = [first, second]
                for loss in order:
                    if loss not in group and not is_separated[loss, group].any():
                        group.append(loss)
                is_covered[np.ix_(group, group)] = True
                groups.append(sorted(group, key=order.index))
        if not any(first in group for group in groups):
            groups.append([first])
    return groups


def group_letters(groups: Sequence[Sequence[int]], loss: int) -> str:
    """The letters of the groups that `loss` is in.

    >>> group_letters([[0, 1], [1, 2]], 1)
    'a b'
    """
    return " ".join(_letter(number) for number, group in enumerate(groups) if loss in group)


def _letter(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    letters = ""
    while number >= 0:
        letters = ascii_lowercase[number % 26] + letters
        number = number // 26 - 1
    return letters
