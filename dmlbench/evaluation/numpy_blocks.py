"""The ranks, and the metrics, of blocks of queries whose similarities are known, by numpy.

An image is graded if it shares the class or a super-class with the query. Queries with equally many
graded images are ranked at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dmlbench.evaluation.graded import Graded, discounts, grade
from dmlbench.evaluation.numpy_near import UNIT, find_ties, near_graded, sort_near
from dmlbench.evaluation.relevant import Relevant
from dmlbench.evaluation.similarities import ascending_integers, exact_similarities

CHUNK = 2**20
"""Similarities that are ranked at once, if there is more than one query."""
MAX_ROWS = 2**9
"""Most queries at once: row, similarity and number of an image fit an integer of 64 bits."""


class Blocks:
    """Ranks blocks of queries, and grades them if there are super-classes.

    Args:
        queries: (Q, D) vectors of length 1 at most.
        images: (G, D) those of the gallery.
        relevant: their classes, and super-classes if there are any.
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
        self.graded = Graded.empty(relevant.levels, len(queries)) if relevant.levels > 1 else None
        self._queries, self._images, self._relevant = queries, images, relevant
        self._ranks, self._tie, self._many_ties = ranks, tie, many_ties
        self._counts = relevant.counts
        self._starts = self._counts.cumsum() - self._counts
        self._discount = discounts(len(images))
        self._bits = np.min_scalar_type(2**relevant.levels - 1)
        # queries of the same classes share the same levels with an image
        _, rows, self._group = np.unique(
            relevant.wanted, axis=1, return_index=True, return_inverse=True
        )
        sizes = np.array([len(self._shared_by(row)[1]) for row in rows])
        self._sizes = sizes[self._group] - (relevant.own >= 0)
        order = np.lexsort((self._group, self._sizes))
        self.order = order[self._sizes[order] > 0]
        """The queries that have graded images, in the order in which they are ranked quickly."""

    def rank(self, rows: NDArray[np.int64], similarities: NDArray[np.float32]) -> None:
        """Rank and grade the queries `rows` (B,), in the order of `order`, by their `similarities`
        (B, G), which change."""
        most = min(MAX_ROWS, max(1, CHUNK // len(self._images)))
        steps = 1 + np.flatnonzero(np.diff(self._sizes[rows]))
        for start, stop in zip([0, *steps], [*steps, len(rows)], strict=True):
            for first in range(start, stop, most):
                part = slice(first, min(first + most, stop))
                postponed = self._rank(rows[part], similarities[part], self._tie)
                if len(postponed):
                    exact = np.empty((len(postponed), len(self._images)), dtype=np.float32)
                    exact_similarities(self._queries[postponed], self._images, exact)
                    self._rank(postponed, exact, np.float32(0))

    def _rank(
        self, rows: NDArray[np.int64], similarity: NDArray[np.float32], tie: np.float32
    ) -> NDArray[np.int64]:
        """Rank and grade the queries `rows`, all with equally many graded images, by their
        `similarity`, which is exact if `tie` is 0.

        Returns:
            The rows for which too many images tie: they are left as they were.
        """
        own = self._relevant.own[rows]
        inside = np.flatnonzero(own >= 0)
        similarity[inside, own[inside]] = -np.inf
        shared, of_graded = self._find_shared(rows, similarity)
        near = near_graded(similarity, of_graded, tie)
        sizes = np.array([len(places) for places in near.places])
        ends = sizes.cumsum()
        keys, bits = sort_near(np.concatenate(near.values), sizes, is_exact=not tie)
        order = keys & ((1 << bits) - 1)
        levels = [own.take(places) for own, places in zip(shared, near.places, strict=True)]
        levels = np.concatenate(levels)[order]
        settled = np.ones(len(rows), dtype=bool)
        if tie:
            place = np.concatenate(near.places)[order]
            self._settle(rows, place, keys >> bits, ends, levels, settled)
        # one query after another, and each has equally many
        graded = np.flatnonzero(levels != 0).reshape(len(rows), -1)
        bucket = np.concatenate(near.buckets).take(order.take(graded))
        ranks = graded + near.above.take(bucket) - (ends - sizes - 1)[:, None]
        ranks, levels, done = ranks[settled], levels[graded[settled]], rows[settled]
        if len(done) and self.graded:
            of_rows = grade(ranks, levels, self._relevant.levels, self._discount)
            self.graded.put(done, of_rows)
        of_class = self._counts[done]
        first = self._starts[done] - (of_class.cumsum() - of_class)
        own_places = np.repeat(first, of_class) + np.arange(of_class.sum())
        self._ranks[own_places] = ranks[levels & 1 > 0]
        return rows[~settled]

    def _shared_by(self, row: np.int64) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
        """For a query, (G,) bit i is 1 if the image shares level i; and the places of the images
        that share any."""
        shared, places = np.zeros(len(self._images), dtype=self._bits), []
        limits = zip(self._relevant.lowest[:, row], self._relevant.highest[:, row], strict=True)
        for level, (lowest, highest) in enumerate(limits):
            of_level = self._relevant.by_class[level, lowest:highest]
            before = shared[of_level]
            places.append(of_level[before == 0])
            shared[of_level] = before | self._bits.type(1 << level)
        return shared, np.concatenate(places)

    def _find_shared(
        self, rows: NDArray[np.int64], similarity: NDArray[np.float32]
    ) -> tuple[list[NDArray[np.unsignedinteger]], NDArray[np.float32]]:
        """B arrays (G,) as of `_shared_by`, and the similarities (B, n) to the graded images,
        ascending."""
        size = self._sizes[rows[0]]
        shared, of_graded = [], np.empty((len(rows), size), dtype=np.float32)
        steps = 1 + np.flatnonzero(np.diff(self._group[rows]))
        for start, stop in zip([0, *steps], [*steps, len(rows)], strict=True):
            of_group, columns = self._shared_by(rows[start])
            shared += [of_group] * (stop - start)
            values = np.sort(similarity[start:stop].take(columns, axis=1), axis=1)
            of_graded[start:stop] = values[:, len(columns) - size :]  # without the query itself
        return shared, of_graded

    def _settle(
        self,
        rows: NDArray[np.int64],
        place: NDArray[np.int64],
        steps: NDArray[np.int64],
        ends: NDArray[np.int64],
        levels: NDArray[np.unsignedinteger],
        settled: NDArray[np.bool_],
    ) -> None:
        """Put the `levels` of tied images in the order of their exact similarities.

        Args:
            rows: (B,)
            place: (N,) of images in the order of the ranking, one query after another.
            steps: (N,) their dissimilarities, as of `sort_near`.
            ends: (B,) the number of images up to the end of each query.
            levels: (N,) of these images; they change.
            settled: (B,) gets False for a query of which too many images tie.
        """
        bottom, top = find_ties(steps, levels, 2 + int(self._tie / UNIT))
        row, tied = np.searchsorted(ends, bottom, "right"), top - bottom
        settled[np.bincount(row, tied, len(rows)) > self._many_ties] = False
        kept = settled[row]
        bottom, row, tied = bottom[kept], row[kept], tied[kept]
        group = np.repeat(np.arange(len(tied)), tied)
        position = np.repeat(bottom - (tied.cumsum() - tied), tied) + np.arange(len(group))
        # by place first: the order of those that are equal
        bits, own_bits = len(self._images).bit_length(), self._relevant.levels
        keys = (group << bits | place[position]) << own_bits | levels[position]
        keys.sort()
        images = keys >> own_bits & ((1 << bits) - 1)
        queries = np.repeat(rows[row], tied)
        exact = np.empty(len(images), dtype=np.float32)
        for start in range(0, len(images), 256):  # what fits the cache
            part = slice(start, start + 256)
            exact[part] = np.vecdot(
                self._images[images[part]].astype(np.float64),
                self._queries[queries[part]].astype(np.float64),
            )
        order = np.argsort((group << 32) - ascending_integers(exact), kind="stable")
        levels[position] = keys[order] & ((1 << own_bits) - 1)
