"""Which queries a gallery shows, and which classes are taken for each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from dmlbench.gallery.neighbours import Neighbours
from dmlbench.gallery.ranked_images import RankedImages, Rows


def hardest_failures(images: RankedImages, found: Neighbours, most: int) -> list[int]:
    """Places in `images.queries` whose nearest image is wrong, the most certain errors first.

    The margin decides: how much nearer the wrong image is than any image of the query's class. No
    class has two queries here before every class with a failure has one.

    Args:
        most: how many, at most.
    """
    wrong = np.flatnonzero(~is_right(images, found) & np.isfinite(found.margins))
    return _spread(images, wrong[np.argsort(found.margins[wrong], kind="stable")], most)


def closest_successes(images: RankedImages, found: Neighbours, most: int) -> list[int]:
    """Places in `images.queries` whose nearest image is right, the narrowest first: a wrong image
    is nearly as near. Classes are spread as in `hardest_failures`."""
    right = np.flatnonzero(is_right(images, found) & np.isfinite(found.margins))
    return _spread(images, right[np.argsort(found.margins[right], kind="stable")], most)


def is_right(images: RankedImages, found: Neighbours) -> np.ndarray:
    """(Q,) whether the nearest image of each query is of its class."""
    return np.asarray(images.labels[found.nearest[:, 0]] == images.labels[images.queries])


def _spread(images: RankedImages, places: Iterable[int], most: int) -> list[int]:
    """The first `most` of `places`: the first of each class, then the second of each, ..."""
    seen: Counter[int] = Counter()
    rounds = []
    for order, place in enumerate(places):
        label = int(images.labels[images.queries[place]])
        rounds.append((seen[label], order, int(place)))
        seen[label] += 1
    return [place for _, _, place in sorted(rounds)[:most]]


class Confusion(NamedTuple):
    """Queries of a class whose nearest image is of another one."""

    label: int
    taken_for: int
    times: int
    queries: int
    """All queries of the class."""
    query: int
    """Row of one of them, and of its nearest image."""
    nearest: int


def confusions(images: RankedImages, found: Neighbours, most: int) -> list[Confusion]:
    """The pairs of classes that are confused most often; of equally many, the larger share first.

    >>> labels = np.array([0, 0, 1, 1])
    >>> rows = np.arange(4)
    >>> images = RankedImages(None, rows, labels, ["a", "b"], {}, rows, rows)
    >>> nearest = np.array([[2], [3], [3], [2]])
    >>> found = Neighbours(nearest, nearest, nearest[:, 0], np.array([-1.0, -1, 1, 1]))
    >>> confusions(images, found, 5)
    [Confusion(label=0, taken_for=1, times=2, queries=2, query=0, nearest=2)]
    """
    wrong = np.flatnonzero(~is_right(images, found) & (found.own >= 0))
    if not len(wrong):
        return []
    nearest = found.nearest[wrong, 0]
    pairs: dict[tuple[int, int], Rows] = {}
    of_pairs = np.stack([images.labels[images.queries[wrong]], images.labels[nearest]])
    kinds, which = np.unique(of_pairs, axis=1, return_inverse=True)
    order = np.argsort(which.ravel(), kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(which.ravel(), minlength=kinds.shape[1]))[:-1])
    for kind, places in zip(kinds.T.tolist(), groups, strict=True):
        pairs[kind[0], kind[1]] = places
    per_class = np.bincount(images.labels[images.queries], minlength=len(images.class_names))
    ranked = sorted(pairs.items(), key=lambda item: (-len(item[1]), per_class[item[0][0]], item[0]))
    return [
        Confusion(
            label,
            taken_for,
            len(places),
            int(per_class[label]),
            int(images.queries[wrong[places[0]]]),
            int(nearest[places[0]]),
        )
        for (label, taken_for), places in ranked[:most]
    ]
