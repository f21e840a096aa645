"""The images that are sorted to rank a query, by numpy, and their order.

No similarity is sorted that is not near that of a graded image: the others are counted in buckets.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmlbench.evaluation.similarities import ascending_integers

FEW = 4096
"""So many images are all sorted; more are counted in buckets first."""
BUCKETS = 4096
"""The least number of buckets of a query; there may be half as many."""
PER_IMAGE = 12
"""Buckets for each graded image: few other images are in one with it."""
UNIT = 2.0**-30
"""Similarities are sorted as multiples of it: integers of 32 bits, far more precise than `tie`."""


class Near(NamedTuple):
    """The images of B queries that are sorted, and how many others are above them."""

    places: list[NDArray[np.int64]]
    """B arrays of places in the gallery, ascending."""
    values: list[NDArray[np.float32]]
    """B arrays of their similarities."""
    buckets: list[NDArray[np.int64]]
    """B arrays of a bucket for each place."""
    above: NDArray[np.int32]
    """For each bucket, the number of images that are nearer to the query and not in `places`."""


def near_graded(
    similarity: NDArray[np.float32], of_graded: NDArray[np.float32], tie: np.float32
) -> Near:
    """The images that may be within `tie` of a graded one, and how many others are above.

    If many images are above the lowest graded one of a query, they are counted in buckets, from the
    most similar to the least. Those above all graded ones are in the first bucket, those below all
    of them in the last, and a tie reaches no further than the next bucket.

    Args:
        similarity: (B, G)
        of_graded: (B, n) those of the graded images, ascending.
    """
    rows, size = similarity.shape
    count = max(BUCKETS, min(PER_IMAGE * of_graded.shape[1], size))
    width = count + 6
    margin = max(tie, 8 * np.finfo(np.float32).eps)
    reach = np.maximum((of_graded[:, -1] - of_graded[:, 0]) / count, 4 * margin)
    # From base / 1.5 to twice as much, two neighbours of float32 differ by a power of 2, which is a
    # bucket, and their bits by 1. So a subtraction from the base counts buckets.
    base = np.ldexp(np.float32(1.5), 23 + np.frexp(reach)[1])[:, None]
    first = (base - (of_graded[:, -1:] + 2 * margin)).view(np.int32) - 1
    reached = [
        ((base - values).view(np.int32) - first + np.arange(rows)[:, None] * width).ravel()
        for values in (of_graded + tie, of_graded - tie)
    ]
    reached[1] = reached[1][reached[1] != reached[0]]
    is_near = np.zeros((rows, width), dtype=bool)
    for buckets_of_ties in reached:
        is_near.ravel()[buckets_of_ties] = True

    number, bucket = np.empty(size, dtype=np.float32), np.empty(size, dtype=np.int64)
    bits = number.view(np.int32)
    # numpy is slower to compare with a single number
    none, last = np.zeros(size, dtype=np.int32), np.full(size, width - 1, dtype=np.int32)
    others = np.zeros((rows, width), dtype=np.int32)
    near, has_many = Near([], [], [], others), False
    for row, of_row in enumerate(similarity):
        if not has_many:
            is_above = of_row >= of_graded[row, 0] - tie
            has_many = bool(np.count_nonzero(is_above) > FEW)
        if has_many:
            np.subtract(base[row], of_row, out=number)
            np.subtract(bits, first[row], out=bits)
            np.maximum(bits, none, out=bits)
            np.minimum(bits, last, out=bits)
            np.copyto(bucket, bits)
            others[row] = np.bincount(bucket, minlength=width)
            has_many = bool(size - others[row, -1] > FEW)  # so has the next, often of its class
            places = np.flatnonzero(is_near[row].take(bucket))
            near.buckets.append(bucket.take(places) + row * width)
        else:
            places = np.flatnonzero(is_above)
            near.buckets.append(np.full(len(places), row * width))
        near.places.append(places)
        near.values.append(of_row.take(places))
    for buckets_of_ties in reached:
        others.ravel()[buckets_of_ties] = 0
    return near._replace(above=others.cumsum(axis=1, dtype=np.int32).ravel())


def sort_near(
    values: NDArray[np.float32], sizes: NDArray[np.int64], is_exact: bool
) -> tuple[NDArray[np.int64], int]:
    """Sort by query, then falling similarity, then number.

    Args:
        values: (N,) similarities, one query after another.
        sizes: (B,) how many there are of each query.
        is_exact: whether equal similarities are told from others whose difference is below `UNIT`.

    Returns:
        Ascending integers, and the number of their low bits, which number a similarity. The other
        bits are a dissimilarity: 1 more for each `UNIT`, unless `is_exact`. Those of two queries
        differ by more than 1 / `UNIT`.
    """
    # numpy sorts integers faster than it sorts places, so each integer holds all three
    bits = len(values).bit_length()
    if is_exact:
        numbers = ascending_integers(values)
    else:
        numbers = (values * np.float32(1 / UNIT)).astype(np.int32)
    keys = np.repeat((np.arange(len(sizes)) << 32) + 2**31, sizes)
    keys -= numbers
    keys <<= bits
    keys |= np.arange(len(values))
    for of_row in np.split(keys, sizes.cumsum()[:-1]):
        of_row.sort()
    return keys, bits


def find_ties(
    steps: NDArray[np.int64], levels: NDArray[np.unsignedinteger], tie: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the groups of images begin and end whose order has to be settled.

    The order of two images matters if they share other levels with the query. If they are within
    `tie`, so are two neighbours between them of which that is true as well. All images within `tie`
    of the one of these that shares a level are in one group.

    Args:
        steps: (N,) ascending.
        levels: (N,) 0 if the image shares none.
        tie: steps that differ by no more than this may be in any order.
    """
    place = np.flatnonzero((np.diff(steps) <= tie) & (levels[1:] != levels[:-1]))
    place = np.sort(np.concatenate([place, place + 1]))
    middle = steps[place[levels[place] != 0]]
    bottom = np.searchsorted(steps, middle - tie)
    top = np.searchsorted(steps, middle + tie, "right")
    is_first = np.append(True, bottom[1:] >= top[:-1])[: len(bottom)]
    return bottom[is_first], top[np.append(is_first[1:], True)[: len(top)]]
