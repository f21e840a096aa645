"""What losses disagree on: single queries, and whole classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

ENOUGH = 12
"""Queries for each ordered pair of losses, where one is right and the other is wrong."""


def contested_queries(right: NDArray[np.bool_], labels: NDArray[np.int64], most: int) -> list[int]:
    """The queries that losses disagree on most, such that each two losses have some.

    Queries on which the losses are divided most evenly come first; of equally divided ones, the
    first of each class, then the second of each class, and so on. One is left out if each pair of
    losses that it tells apart has enough already.

    Args:
        right: (L, Q) whether the nearest image of each query is right, by each of L losses.
        labels: (Q,) class of each query.
        most: how many, at most.

    >>> right = np.array([[True, True, False], [True, False, False], [True, False, True]])
    >>> contested_queries(right, np.array([0, 0, 1]), most=5)
    [1, 2]
    """
    votes = right.sum(axis=0)
    division = votes * (len(right) - votes)
    of_class: Counter[tuple[int, int]] = Counter()
    turns = {}
    for query in np.flatnonzero(division).tolist():
        kind = int(division[query]), int(labels[query])
        turns[query] = of_class[kind]
        of_class[kind] += 1
    counts: Counter[tuple[int, int]] = Counter()
    chosen: list[int] = []
    for query in sorted(turns, key=lambda query: (-division[query], turns[query])):
        winners, losers = (np.flatnonzero(right[:, query] == is_won) for is_won in (True, False))
        pairs = [*product(winners.tolist(), losers.tolist())]
        if any(counts[pair] < ENOUGH for pair in pairs):
            counts.update(pairs)
            chosen.append(query)
        if len(chosen) == most:
            break
    return chosen


def mean_by_class(
    classes: Sequence[NDArray[np.int64]], scores: Sequence[NDArray[np.float64]], count: int
) -> NDArray[np.float64]:
    """The mean score of each class (C,), over its queries in all runs; NaN without any.

    Args:
        classes: (Q,) class of each query, from 0, for each run.
        scores: (Q,) its score; NaN is left out.
        count: C.

    >>> mean_by_class([np.array([0, 0, 2])], [np.array([1.0, 0.0, np.nan])], 3).tolist()
    [0.5, nan, nan]
    """
    labels, values = np.concatenate(classes), np.concatenate(scores)
    counts = ~np.isnan(values)
    number = np.bincount(labels[counts], minlength=count)
    total = np.bincount(labels[counts], values[counts], minlength=count)
    return np.divide(total, number, out=np.full(count, np.nan), where=number > 0)
