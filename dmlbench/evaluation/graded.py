"""Metrics of graded relevance, for data sets with super-classes.

An image may share the class of a query, or only a super-class of some level. Its **grade** is L if
it shares the class, L - 1 if the nearest level that it shares is that of the nearest super-classes,
and so on down to 1; an image that shares nothing has grade 0. L is the number of levels. The query
itself has no grade, and is not ranked.

For one query, n images have a grade above 0. Image k has the grade g(k) and the rank r(k), from 1
in the ranking of the whole gallery, and c(g) is the number of images of grade g.

H-AP, hierarchical average precision (Ramzi et al., "Hierarchical Average Precision Training for
Pertinent Image Retrieval", ECCV 2022, equations 1-3 and the relevance of its section 3.1):

    rel(k)   = (g(k) / L)^alpha / c(g(k)), with alpha = 1
    Hrank(k) = sum of min(rel(k), rel(j)) over j with g(j) > 0 and r(j) <= r(k)
    H-AP     = sum over k with g(k) > 0 of Hrank(k) / r(k), divided by the sum of rel(k)

With one level it is the average precision. A common factor of all rel(k) cancels, so (g / L) and
(g / (L - 1)), as in the code of the authors, are the same.

ASI, average set intersection (Sun et al., "Dynamic Metric Learning", CVPR 2021, section 3): the
mean over the depths d = 1 .. n of the part of the d nearest images that an ideal ranking, by
falling grade, has among its first d too. Images of one grade may take any order in an ideal
ranking; the paper does not say which one counts. Here, as in the code of Ramzi et al., it is the
one with the most common images: sum over grades of min(found among d, ideal among d).

NDCG, normalised discounted cumulative gain (Järvelin and Kekäläinen, TOIS 2002, with the gain of
Burges et al., ICML 2005): gain 2^g - 1, discount 1 / log2(1 + r), over the whole gallery, divided
by that of an ideal ranking.

A query without any graded image has none of the three. A query that is alone in its class, and not
in its super-class, has them: the sources do not say, and it has an ideal ranking.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ALPHA = 1.0
"""The exponent of the relevance in H-AP: the default in the code of the authors."""


class Graded(NamedTuple):
    """What the metrics of graded relevance are computed from, or their values, for Q queries."""

    first: NDArray[np.int64]
    """(levels, Q) rank of the nearest image that shares the class or super-class of the query; 0 if
    the gallery has none."""
    h_ap: NDArray[np.float64]
    """(Q,) in (0, 1]; NaN for a query without any graded image. `asi` and `ndcg` too."""
    asi: NDArray[np.float64]
    ndcg: NDArray[np.float64]

    @classmethod
    def empty(cls, levels: int, queries: int) -> Graded:
        """No image is graded for any query."""
        first = np.zeros((levels, queries), dtype=np.int64)
        return cls(first, *np.full((3, queries), np.nan))

    def put(self, rows: NDArray[np.integer], of_rows: Graded) -> None:
        """Write the values of the queries `rows`."""
        for values, own in zip(self, of_rows, strict=True):
            values[..., rows] = own

    def recall_at(self, k: int, level: int) -> float:
        """Recall@K of a level of super-classes: the fraction of queries with an image of their
        super-class among the `k` nearest.

        Queries without another image of their super-class in the gallery are left out.

        >>> Graded(np.array([[0, 0, 2], [1, 0, 2]]), *np.ones((3, 3))).recall_at(1, level=1)
        0.5
        """
        first = self.first[level]
        return float((first[first > 0] <= k).mean())

    def means(self) -> dict[str, float]:
        """h_ap, asi and ndcg: means over the queries that have them. Sums of floats may be a little
        above 1, which no score is."""
        return {
            name: min(1.0, float(np.nanmean(values)))
            for name, values in zip(self._fields[1:], self[1:], strict=True)
        }


def discounts(size: int) -> NDArray[np.float64]:
    """1 / log2(1 + r) for the ranks r = 1 .. `size`, (size + 1,); that of rank 0 is 0.

    >>> discounts(3).round(4).tolist()
    [0.0, 1.0, 0.6309, 0.5]
    """
    return np.concatenate([[0.0], 1 / np.log2(1 + np.arange(1.0, size + 1))])


def grade(
    ranks: NDArray[np.int64],
    shared: NDArray[np.unsignedinteger],
    levels: int,
    discount: NDArray[np.float64],
) -> Graded:
    """The metrics of some queries, from the ranks of their graded images.

    Args:
        ranks: (Q, n) ranks of the graded images of each query, ascending; n is above 0.
        shared: (Q, n) bit i is 1 if the image and the query share level i.
        levels: L.
        discount: `discounts` of the gallery.

    >>> one_query = np.array([[1, 2, 4]]), np.array([[2, 3, 2]], np.uint8)
    >>> graded = grade(*one_query, levels=2, discount=discounts(4))
    >>> graded.first.tolist()  # the only image of its class has rank 2
    [[2], [1]]
    >>> [round(float(value), 4) for value in (graded.h_ap[0], graded.asi[0], graded.ndcg[0])]
    [0.7083, 0.5556, 0.8045]
    """
    size = ranks.shape[1]
    grades = levels - _lowest_bit(shared)
    numbers = np.arange(1, levels + 1)
    is_grade = grades == numbers[:, None, None]
    so_far = is_grade.cumsum(axis=2, dtype=np.int32)
    totals = so_far[:, :, -1].astype(np.int64)

    # The sum over k of min(rel(k), rel(j)) / r(k) is a sum over pairs of grades.
    weights = (numbers / levels)[:, None] ** ALPHA
    relevance = weights / np.maximum(totals, 1)
    own = is_grade.astype(np.float64)
    nearer = np.vecdot(own[:, None], so_far / ranks)
    h_rank = (np.minimum(relevance[:, None], relevance) * nearer).sum(axis=(0, 1))

    # grade 0 at the depths where the ranking has no graded image
    at_depth = np.zeros(ranks.shape, dtype=np.uint8)
    start = np.arange(len(ranks))[:, None] * size
    early = np.flatnonzero(ranks <= size)
    at_depth.ravel()[(ranks + (start - 1)).ravel()[early]] = grades.ravel()[early]
    depth = np.arange(1, size + 1, dtype=np.int32)
    common, better = np.zeros(ranks.shape, dtype=np.int32), np.zeros(len(ranks), dtype=np.int32)
    for number in range(levels, 0, -1):
        found = (at_depth == number).cumsum(axis=1, dtype=np.int32)
        common += np.minimum(found, np.maximum(depth - better[:, None], 0))
        better += totals[number - 1]

    gains = 2.0**numbers - 1
    ahead = discount[: size + 1].cumsum()
    limits = np.concatenate([np.zeros((1, len(ranks)), np.int64), totals[::-1].cumsum(axis=0)])
    ideal_gain = gains[::-1] @ np.diff(ahead[limits], axis=0)
    gain = gains @ np.vecdot(own, discount[ranks])
    bits = [shared >> level & 1 for level in range(levels)]
    first = [
        ranks.ravel()[(start + bit.argmax(axis=1, keepdims=True))[:, 0]] * bit.any(axis=1)
        for bit in bits
    ]
    return Graded(
        np.stack(first),
        h_rank / (weights * (totals > 0)).sum(axis=0),
        np.vecdot(common, 1 / depth) / size,
        gain / ideal_gain,
    )


def _lowest_bit(numbers: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
    """The place of the lowest bit that is 1.

    >>> _lowest_bit(np.array([1, 2, 3, 4, 6], dtype=np.uint8)).tolist()
    [0, 1, 0, 2, 1]
    """
    return np.bitwise_count((numbers & -numbers) - numbers.dtype.type(1))
