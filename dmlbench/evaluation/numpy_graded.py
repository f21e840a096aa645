"""The ranking of the images that share a level of classes with a query, by numpy.

Images of a super-class are many, and far down the ranking. So many queries are ranked at once, and
no similarity is sorted that is not near that of a graded image: the others are counted in buckets.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmlbench.evaluation.graded import Graded, discounts, grade
from dmlbench.evaluation.relevant import Relevant
from dmlbench.evaluation.similarities import ascending_integers, exact_similarities

CHUNK = 2**18
"""Similarities that are ranked at once: what fits the cache. Their places are numbers below it, or
there is one query."""
MAX_ROWS = 2**10
"""Most queries at once: row, similarity and place of an image fit an integer of 64 bits."""
BUCKETS = 1024
"""The least number of buckets of a query."""
PER_IMAGE = 8
"""Buckets for each graded image: few other images are in one with it."""


class _Found(NamedTuple):
    """The ranks of graded images, one query after another."""

    ranks: NDArray[np.int64]
    """(sum of counts,) from 1, ascending for each query."""
    shared: NDArray[np.unsignedinteger]
    """(sum of counts,) bit i is 1 if the image and the query share level i."""
    counts: NDArray[np.int64]
    """(Q,)"""


class Grading:
    """Ranks and grades blocks of queries.

    Args:
        queries: (Q, D) unit vectors.
        images: (G, D) those of the gallery.
        relevant: their classes, of two or more levels.
        ranks: gets the ranks of the images of each query's class, as `Ranking.ranks`.
        tie: similarities that differ by no more than this may be in any order.
        many_ties: most tied images of a query whose similarities are computed one by one.
    """

    def __init__(
        self,
        queries: NDArray[np.float32],
        images: NDArray[np.float32],
        relevant: Relevant,
        ranks: NDArray[np.int64],
        tie: np.float32,
        many_ties: int,
    ) -> None:
        self.graded = Graded.empty(relevant.levels, len(queries))
        self._queries, self._images, self._relevant = queries, images, relevant
        self._ranks, self._tie, self._many_ties = ranks, tie, many_ties
        self._starts = relevant.counts.cumsum() - relevant.counts
        self._discount = discounts(len(images))
        self._bits = np.min_scalar_type(2**relevant.levels - 1)

    def grade(self, rows: NDArray[np.int64], similarities: NDArray[np.float32]) -> None:
        """Rank and grade the queries `rows` (B,) by their `similarities` (B, G), which change."""
        size = min(MAX_ROWS, max(1, CHUNK // len(self._images)))
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            postponed = self._grade(rows[part], similarities[part], self._tie)
            if len(postponed):
                exact = np.empty((len(postponed), len(self._images)), dtype=np.float32)
                exact_similarities(self._queries[postponed], self._images, exact)
                self._grade(postponed, exact, np.float32(0))

    def _grade(
        self, rows: NDArray[np.int64], similarity: NDArray[np.float32], tie: np.float32
    ) -> NDArray[np.int64]:
        """Rank and grade the queries `rows` by their `similarity`, which is exact if `tie` is 0.

        Returns:
            The rows for which too many images tie: they are left as they were.
        """
        own = self._relevant.own[rows]
        inside = np.flatnonzero(own >= 0)
        similarity[inside, own[inside]] = -np.inf
        shared = self._find_shared(rows)
        shared[inside, own[inside]] = 0
        some = shared.any(axis=1)
        if not some.all():
            rows, similarity, shared = rows[some], similarity[some], shared[some]
        if not len(rows):
            return rows
        found, postponed = self._rank(rows, similarity, shared, tie)
        done = np.ones(len(rows), dtype=bool)
        done[postponed] = False
        counts = found.counts[done]
        if len(counts):
            levels = self._relevant.levels
            of_rows = grade(found.ranks, found.shared, counts, levels, self._discount)
            self.graded.put(rows[done], of_rows)
            of_class = self._relevant.counts[rows[done]]
            first = self._starts[rows[done]] - (of_class.cumsum() - of_class)
            places = np.repeat(first, of_class) + np.arange(of_class.sum())
            self._ranks[places] = found.ranks[found.shared & 1 > 0]
        return rows[postponed]

    def _find_shared(self, rows: NDArray[np.int64]) -> NDArray[np.unsignedinteger]:
        """(B, G) bit i is 1 if the query and the image share level i."""
        shared = np.zeros((len(rows), len(self._images)), dtype=self._bits)
        of_levels = zip(self._relevant.classes, self._relevant.wanted[:, rows], strict=True)
        for level, (classes, wanted) in enumerate(of_levels):
            shared |= (classes == wanted[:, None]) * self._bits.type(1 << level)
        return shared

    def _rank(
        self,
        rows: NDArray[np.int64],
        similarity: NDArray[np.float32],
        shared: NDArray[np.unsignedinteger],
        tie: np.float32,
    ) -> tuple[_Found, NDArray[np.int64]]:
        """The ranks of the images that share a level, and the queries that are postponed, as places
        in `rows`: they have no ranks."""
        near, above = _near_graded(similarity, shared > 0, tie)
        query, place = np.divmod(near, similarity.shape[1])
        order = _order(query, similarity.ravel()[near])
        near, query, place, above = near[order], query[order], place[order], above[order]
        levels = shared.ravel()[near]
        postponed = np.empty(0, dtype=np.int64)
        if tie:
            tied, group = _find_ties(query, similarity.ravel()[near], levels, tie)
            many = np.bincount(query[tied], minlength=len(rows)) > self._many_ties
            postponed = np.flatnonzero(many)
            kept = ~many[query[tied]]
            tied, group = tied[kept], group[kept]
            exact = np.vecdot(
                self._images[place[tied]].astype(np.float64),
                self._queries[rows[query[tied]]].astype(np.float64),
            ).astype(np.float32)
            levels[tied] = levels[tied[np.lexsort((place[tied], -exact, group))]]
            levels[many[query]] = 0
        graded = np.flatnonzero(levels)
        counts = np.bincount(query, minlength=len(rows))
        before = np.repeat(counts.cumsum() - counts, counts)
        ranks = 1 + graded - before[graded] + above[graded]
        return (
            _Found(ranks, levels[graded], np.bincount(query[graded], minlength=len(rows))),
            postponed,
        )


def _near_graded(
    similarity: NDArray[np.float32], graded: NDArray[np.bool_], tie: np.float32
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The images that may be within `tie` of a graded one, and how many others are above.

    Similarities are counted in buckets. Those below all graded ones are in the first bucket of a
    query, and a tie reaches no further than the next bucket.

    Args:
        similarity: (B, G)
        graded: (B, G), one or more in each row.

    Returns:
        Flat places in `similarity`, ascending, and for each of them the number of images of its
        query that are nearer to the query and not among these places.
    """
    flat = np.flatnonzero(graded)
    counts = np.count_nonzero(graded, axis=1)
    values, starts = similarity.ravel()[flat], counts.cumsum() - counts
    per_query = max(BUCKETS, min(PER_IMAGE * int(counts.max()), similarity.shape[1]))
    margin = max(tie, 8 * np.finfo(np.float32).eps)  # an exact similarity may be a little above 1
    lowest = np.minimum.reduceat(values, starts) - 2 * margin
    scale = 1 / np.maximum((1 + 2 * margin - lowest) / per_query, 4 * margin)
    base = np.arange(len(counts), dtype=np.float32) * (per_query + 3)
    shift = base + 1 - lowest * scale

    def bucket(values: NDArray[np.float32], query: Any) -> NDArray[np.intp]:
        numbers = values * scale[query]
        numbers += shift[query]
        np.maximum(numbers, base[query], out=numbers)
        return numbers.astype(np.intp)

    bucket_of_image = bucket(similarity, np.arange(len(counts))[:, None]).ravel()
    query = np.repeat(np.arange(len(counts)), counts)
    is_near = np.zeros(len(counts) * (per_query + 3), dtype=bool)
    is_near[bucket(values - tie, query)] = is_near[bucket(values + tie, query)] = True
    others = np.bincount(bucket_of_image, minlength=len(is_near))
    others[is_near] = 0
    above = np.cumsum(others)
    above = np.repeat(above[per_query + 2 :: per_query + 3], per_query + 3) - above
    near = np.flatnonzero(is_near.take(bucket_of_image))
    return near, above[bucket_of_image[near]]


def _order(query: NDArray[np.int64], similarity: NDArray[np.float32]) -> NDArray[np.int64]:
    """The order by query, then falling similarity, then place. numpy sorts integers faster than it
    sorts places, so each integer holds all three."""
    bits = len(query).bit_length()
    keys = (query << 32) + 2**31 - ascending_integers(similarity) << bits
    keys |= np.arange(len(keys))
    keys.sort()
    places: NDArray[np.int64] = keys & ((1 << bits) - 1)
    return places


def _find_ties(
    query: NDArray[np.int64],
    similarity: NDArray[np.float32],
    levels: NDArray[np.unsignedinteger],
    tie: np.float32,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The images (T,) whose order has to be settled, and a number of the group of each: images of
    different groups are in the right order. The arguments are in the order of the ranking.

    Neighbours are in one group if both are within `tie` of the same graded image.
    """
    places, is_graded = np.arange(len(query)), levels > 0
    before = np.maximum.accumulate(np.where(is_graded, places, 0))
    after = np.minimum.accumulate(np.where(is_graded, places, places[-1])[::-1])[::-1]
    together = similarity[before[:-1]] - similarity[1:] <= tie
    together |= similarity[:-1] - similarity[after[1:]] <= tie
    together &= query[1:] == query[:-1]
    group = np.concatenate([[0], np.cumsum(~together)])
    matters = np.zeros(group[-1] + 1, dtype=bool)
    matters[group[1:][together & (levels[1:] != levels[:-1])]] = True
    tied = np.flatnonzero(matters[group])
    return tied, group[tied]
