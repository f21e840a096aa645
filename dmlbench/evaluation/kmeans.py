"""Euclidean k-means of many vectors into many clusters: the textbook's result by matrix products.

Seeding is k-means++ (Arthur and Vassilvitskii, SODA 2007), drawn in blocks by rejection: from
random vectors, k-means finds only about 85 % NMI even where classes are single points. Then Lloyd's
iterations, without most of the distances that cannot change an assignment. Both are written once,
over the few operations of `Points`, whose arrays are numpy's or a device's.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Squares = NDArray[np.float32]

FEWEST, MOST = 16, 1024  # candidates drawn at once in seeding


def kmeans(
    vectors: NDArray[np.float32],
    k: int,
    seed: int,
    iterations: int,
    restarts: int,
    threads: int = 1,
    device: str = "cpu",
) -> NDArray[np.int64]:
    """Cluster (N,), 0 to k - 1, of each vector (N, D): of `restarts` runs, the one of least inertia
    (sum of squared distances to the centroids), each of at most `iterations` updates.

    Where there are fewer than k distinct vectors, each of them is a cluster, and the others stay
    empty. A centroid that loses all its vectors moves onto the one that is farthest from its own.
    On "cpu", in numpy and faiss, the result is the same for any number of `threads`; on another
    `device`, torch does the heavy work there, and may settle equal distances otherwise.
    """
    # From the mean, distances lose fewer digits: embeddings often share a large common part.
    centred = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    points: Points
    if device == "cpu":
        from dmlbench.evaluation.numpy_kmeans import NumpyPoints

        points = NumpyPoints(centred, k, threads)
    else:
        from dmlbench.evaluation.torch_kmeans import TorchPoints

        points = TorchPoints(centred, k, device)
    return cluster(points, seed, iterations, restarts)


class Points(Protocol):
    """The vectors (N, D) with k centroids, and what k-means computes of them.

    `rows` are of vectors, `columns` of centroids; squared distances are float32.
    """

    vectors: NDArray[np.float32]
    k: int
    rounding: float  # how far off a squared distance by a product may be

    def place(self, columns: Rows, rows: Rows) -> None:
        """Put centroids onto vectors."""

    def average(self, columns: Rows, rows: Rows, sizes: Rows) -> NDArray[np.float64]:
        """Put centroids onto the means of their vectors, of which the first column has the first
        sizes[0] rows, and so on; how far each has moved, squared."""

    def apart(self, rows: Rows, columns: Rows) -> Squares:
        """Squared distance of each of `rows` to its own of `columns`, by difference."""

    def nearest(self, rows: Rows, columns: Rows) -> tuple[Rows, Squares, Squares]:
        """Of `columns`, the nearest to each of `rows`, and the squared distances of the nearest and
        the second nearest, by product."""

    def between(self, rows: Rows) -> Squares:
        """Squared distances of all pairs of `rows`, by product."""


def rounding(lengths: NDArray[np.floating], dimensions: int) -> float:
    """How far off a squared distance by a product may be: a multiple of the last digit of the
    largest of the squared `lengths` (N,). Errors of a quarter of it were seen."""
    return float(4 * np.finfo(lengths.dtype).eps * max(8, np.sqrt(dimensions) / 2) * lengths.max())


def cluster(points: Points, seed: int, iterations: int, restarts: int) -> NDArray[np.int64]:
    """The best of `restarts` clusterings; see `kmeans`."""
    best, least = None, np.inf
    for restart in range(restarts):
        clustering = Clustering(points)
        clustering.seed(np.random.default_rng([seed, restart]))
        clustering.iterate(iterations)
        inertia = clustering.own.sum(dtype=np.float64)
        if best is None or inertia < least:
            best, least = clustering.cluster, inertia
    assert best is not None, "restarts must be at least 1"
    return best


class Clustering:
    """Which centroid each vector is nearest to, kept up to date as centroids move.

    `cluster` (N,); `own` (N,): squared distance to its centroid; `others` (N,): no other centroid
    is nearer than that, squared.
    """

    def __init__(self, points: Points) -> None:
        self.points = points
        self.rows = np.arange(len(points.vectors))
        self.used = 0  # centroids
        self.cluster = np.full(len(points.vectors), -1)
        self.own = np.full(len(points.vectors), np.inf, dtype=np.float32)
        self.others = np.full(len(points.vectors), np.inf, dtype=np.float32)

    def seed(self, random: np.random.Generator) -> None:
        """Put the centroids onto vectors, each drawn with a chance proportional to its squared
        distance to the nearest before (k-means++).

        Candidates are drawn by the distances to the centroids of earlier blocks, which are too
        large by then, and kept with the chance (distance now) / (distance drawn by): that is the
        same distribution. Ends early where every vector is on a centroid.
        """
        self.place(random.integers(len(self.points.vectors), size=1))
        size = FEWEST
        while self.used < self.points.k:
            chances = self.own.cumsum(dtype=np.float64)
            if chances[-1] == 0:
                break
            size = min(size, self.points.k - self.used)
            drawn = np.searchsorted(chances, random.random(size) * chances[-1], side="right")
            kept = self._kept(np.minimum(drawn, len(self.points.vectors) - 1), random.random(size))
            self.place(kept)
            size = min(max(FEWEST, 2 * len(kept)), MOST)

    def _kept(self, drawn: Rows, chance: NDArray[np.float64]) -> Rows:
        """Of the candidates `drawn`, those that become centroids; the first one always does."""
        own = self.own[drawn]
        near = self.points.between(drawn) < (own + self.points.rounding)[:, None]
        kept = np.zeros(len(drawn), dtype=bool)
        for i, row in enumerate(drawn):
            before = drawn[near[i] & kept]
            apart = self.points.vectors[before] - self.points.vectors[row]
            now = np.einsum("nd,nd->n", apart, apart).min(initial=own[i])
            kept[i] = chance[i] * own[i] < now
        return drawn[kept]

    def place(self, rows: Rows) -> None:
        """Put the next centroids onto vectors."""
        columns = np.arange(self.used, self.used + len(rows))
        self.points.place(columns, rows)
        self.used += len(rows)
        self._compare(self.rows, columns, self.others)

    def iterate(self, iterations: int) -> None:
        """Lloyd's iterations: centroids to means, vectors to the nearest, until nothing changes."""
        changed = np.ones(self.used, dtype=bool)
        for _ in range(iterations):
            self._fill(changed)
            moved = self._average(changed)
            before = self.cluster.copy()
            self._assign(moved)
            changed[:] = False
            switched = self.cluster != before
            changed[before[switched]] = changed[self.cluster[switched]] = True
            if not changed.any():
                break

    def _fill(self, changed: NDArray[np.bool_]) -> None:
        """Move empty clusters onto the vectors farthest from their centroids."""
        sizes = np.bincount(self.cluster, minlength=self.used)
        empty = np.flatnonzero(sizes == 0)
        if not len(empty):
            return
        farthest = iter(np.argsort(-self.own, kind="stable"))
        for column in empty:
            row = next((row for row in farthest if sizes[self.cluster[row]] > 1), None)
            if row is None or self.own[row] == 0:
                break
            sizes[self.cluster[row]] -= 1
            sizes[column] += 1
            changed[self.cluster[row]] = changed[column] = True
            self.others[row] = min(self.others[row], self.own[row])
            self.cluster[row], self.own[row] = column, 0

    def _average(self, changed: NDArray[np.bool_]) -> NDArray[np.float64]:
        """The changed centroids to the means of their vectors, and how far each one moved (k,)."""
        rows = np.flatnonzero(changed[self.cluster])
        rows = rows[np.argsort(self.cluster[rows], kind="stable")]
        columns, sizes = np.unique(self.cluster[rows], return_counts=True)
        moved = np.zeros(self.used)
        moved[columns] = np.sqrt(self.points.average(columns, rows, sizes))
        return moved

    def _assign(self, moved: NDArray[np.float64]) -> None:
        """Vectors to the nearest centroid, after each centroid has moved that far."""
        rows = np.flatnonzero(moved[self.cluster] > 0)
        self.own[rows] = self.points.apart(rows, self.cluster[rows])
        # Where a vector is still nearer to its centroid than to any other before, less the farthest
        # that another has come since, those others need no look. Those that moved farther are
        # compared with all vectors: how far is far is what makes the fewest distances.
        margin = np.sort(np.sqrt(self.others.astype(np.float64)) - np.sqrt(self.own))
        far = np.append(0, np.unique(moved[moved > 0]))
        loud = self.used - np.searchsorted(np.sort(moved), far, side="right")
        unsure = np.searchsorted(margin, far)
        limit = far[np.argmin(loud * (len(margin) - unsure) + unsure * self.used)]
        if limit > 0:
            others = np.maximum(np.sqrt(self.others.astype(np.float64)) - limit, 0)
            self.others = np.square(others).astype(np.float32)
        safe = self.own <= self.others
        rows, columns = np.flatnonzero(safe), np.flatnonzero(moved > limit)
        self._compare(rows, columns, self.others[rows])
        rows = np.flatnonzero(~safe)
        self._compare(rows, np.arange(self.used), np.full(len(rows), np.inf, dtype=np.float32))

    def _compare(self, rows: Rows, columns: Rows, others: Squares) -> None:
        """Let each of `rows` go to the nearest of `columns`, if that is nearer than its own.

        `others`: no other centroid that is not of `columns` is nearer than that, squared.
        """
        if not len(rows) or not len(columns):
            return
        nearest, first, second = self.points.nearest(rows, columns)
        before, own = self.cluster[rows], self.own[rows]
        # The product proposes and the difference decides: no cancellation can raise the inertia,
        # and equal vectors have distance 0.
        near = np.flatnonzero((nearest != before) & (first < own + self.points.rounding))
        exact = self.points.apart(rows[near], nearest[near])
        nearer = exact < own[near]
        switch, exact = near[nearer], exact[nearer]
        second[switch] = np.minimum(second[switch], own[switch])
        stay = nearest != before
        stay[switch] = False
        second[stay] = first[stay]
        own[switch] = exact
        self.cluster[rows[switch]] = nearest[switch]
        self.own[rows] = own
        # Its own is the nearest, as far as rounding can tell.
        self.others[rows] = np.maximum(np.minimum(others, second), own)
