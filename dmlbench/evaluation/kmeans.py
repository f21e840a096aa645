"""Euclidean k-means of many vectors into many clusters: the textbook's result by matrix products.

Seeding is k-means++ (Arthur and Vassilvitskii, SODA 2007), drawn in blocks by rejection: from
random vectors, k-means finds only about 85 % NMI even if each class is a single point. Then Lloyd's
iterations follow, without most of the distances that cannot change an assignment: as in Hamerly's
algorithm (SDM 2010), each vector has one lower bound of its distance to all other centroids. Both
steps use only the operations of `Points`, so one code serves numpy and torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dmlbench.evaluation.points import Points, Rows, SquaredDistances

MIN_CANDIDATES, MAX_CANDIDATES = 16, 1024
"""Candidates that seeding draws at once."""


def kmeans(
    vectors: NDArray[np.float32],
    k: int,
    seed: int,
    iterations: int,
    restarts: int,
    *,
    threads: int = 1,
    device: str = "cpu",
) -> NDArray[np.int64]:
    """Cluster `vectors`; of several starts, return the result with the least inertia.

    The inertia is the sum of the squared distances of the vectors to their centroids. If there are
    fewer than k distinct vectors, each of them is a cluster, and the other clusters stay empty. A
    centroid that loses all its vectors moves onto the vector that is farthest from its own
    centroid.

    Args:
        vectors: (N, D).
        k: clusters.
        seed: of the random draws.
        iterations: most updates of the centroids in each start.
        restarts: starts, at least 1.
        threads: of a clustering on a CPU; the result does not depend on them.
        device: "cpu" for numpy and faiss; another one, such as "cuda", for torch, which may settle
            equal distances differently. If DMLBENCH_KMEANS=faiss, faiss searches there.

    Returns:
        (N,) the cluster of each vector, from 0 to k - 1.

    >>> vectors = np.array([[0, 0], [0, 1], [9, 0], [9, 1]], dtype=np.float32)
    >>> left, also_left, right, also_right = kmeans(vectors, 2, seed=0, iterations=20, restarts=3)
    >>> bool(left == also_left != right == also_right)
    True
    """
    # Relative to the mean, distances lose fewer digits: embeddings often share a large part.
    centred = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    points: Points
    if device == "cpu":
        from dmlbench.evaluation.numpy_kmeans import NumpyPoints

        points = NumpyPoints(centred, k, threads)
    else:
        from dmlbench.evaluation.faiss_kmeans import gpu_points

        points = gpu_points(centred, k, device)
    return cluster(points, seed, iterations, restarts)


def cluster(points: Points, seed: int, iterations: int, restarts: int) -> NDArray[np.int64]:
    """The best of `restarts` clusterings of `points`; see `kmeans`."""
    best, least = None, np.inf
    for restart in range(restarts):
        clustering = Clustering(points)
        clustering.seed(np.random.default_rng([seed, restart]))
        clustering.iterate(iterations)
        inertia = clustering.distances.sum(dtype=np.float64)
        if best is None or inertia < least:
            best, least = clustering.assigned, inertia
    assert best is not None, "restarts must be at least 1"
    return best


class Clustering:
    """The centroid that each vector is nearest to, kept up to date while the centroids move."""

    def __init__(self, points: Points) -> None:
        count = len(points.vectors)
        self.points = points
        self.rows = np.arange(count)
        self.used = 0
        """Number of centroids that are placed."""
        self.assigned = np.full(count, -1)
        """(N,) centroid of each vector."""
        self.distances = np.full(count, np.inf, dtype=np.float32)
        """(N,) squared distance of each vector to its centroid."""
        self.bounds = np.full(count, np.inf, dtype=np.float32)
        """(N,) lower bounds: no other centroid is nearer to the vector than this, squared."""

    def seed(self, random: np.random.Generator) -> None:
        """Put the centroids onto vectors, by k-means++.

        A vector is drawn with a chance proportional to its squared distance to the nearest centroid
        so far. A block of candidates is drawn by the distances to the centroids of earlier blocks,
        which are too large by then. A candidate is kept with the chance (distance now) / (distance
        that it was drawn by), which gives the same distribution. If every vector is on a centroid,
        the seeding ends early.
        """
        self.place(random.integers(len(self.points.vectors), size=1))
        size = MIN_CANDIDATES
        while self.used < self.points.k:
            sums = self.distances.cumsum(dtype=np.float64)
            if sums[-1] == 0:
                break
            size = min(size, self.points.k - self.used)
            candidates = np.searchsorted(sums, random.random(size) * sums[-1], side="right")
            candidates = np.minimum(candidates, len(self.points.vectors) - 1)
            kept = self._keep(candidates, random.random(size))
            self.place(kept)
            size = min(max(MIN_CANDIDATES, 2 * len(kept)), MAX_CANDIDATES)

    def _keep(self, candidates: Rows, chance: NDArray[np.float64]) -> Rows:
        """The candidates that become centroids. The first one always does."""
        drawn_by = self.distances[candidates]
        limits = (drawn_by + self.points.rounding)[:, None]
        near = self.points.pairwise_distances(candidates) < limits
        kept = np.zeros(len(candidates), dtype=bool)
        for i, row in enumerate(candidates):
            before = candidates[near[i] & kept]
            difference = self.points.vectors[before] - self.points.vectors[row]
            now = np.einsum("nd,nd->n", difference, difference).min(initial=drawn_by[i])
            kept[i] = chance[i] * drawn_by[i] < now
        return candidates[kept]

    def place(self, rows: Rows) -> None:
        """Put the next centroids onto vectors."""
        columns = np.arange(self.used, self.used + len(rows))
        self.points.place(columns, rows)
        self.used += len(rows)
        self._compare(self.rows, columns, self.bounds)

    def iterate(self, iterations: int) -> None:
        """Lloyd's iterations: move centroids to means, assign vectors to the nearest centroid.

        They end when no assignment changes.
        """
        changed = np.ones(self.used, dtype=bool)
        for _ in range(iterations):
            self._fill_empty(changed)
            moved = self._average(changed)
            before = self.assigned.copy()
            self._assign(moved)
            changed[:] = False
            switched = self.assigned != before
            changed[before[switched]] = changed[self.assigned[switched]] = True
            if not changed.any():
                break

    def _fill_empty(self, changed: NDArray[np.bool_]) -> None:
        """Move empty clusters onto the vectors that are farthest from their centroids."""
        sizes = np.bincount(self.assigned, minlength=self.used)
        empty = np.flatnonzero(sizes == 0)
        if not len(empty):
            return
        farthest = iter(np.argsort(-self.distances, kind="stable"))
        for column in empty:
            row = next((row for row in farthest if sizes[self.assigned[row]] > 1), None)
            if row is None or self.distances[row] == 0:
                break
            sizes[self.assigned[row]] -= 1
            sizes[column] += 1
            changed[self.assigned[row]] = changed[column] = True
            self.bounds[row] = min(self.bounds[row], self.distances[row])
            self.assigned[row], self.distances[row] = column, 0

    def _average(self, changed: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Move the changed centroids to the means of their vectors; return how far each moved (k,).

        The distances are not squared.
        """
        rows = np.flatnonzero(changed[self.assigned])
        rows = rows[np.argsort(self.assigned[rows], kind="stable")]
        columns, sizes = np.unique(self.assigned[rows], return_counts=True)
        moved = np.zeros(self.used)
        moved[columns] = np.sqrt(self.points.average(columns, rows, sizes))
        return moved

    def _assign(self, moved: NDArray[np.float64]) -> None:
        """Assign vectors to the nearest centroid, after each centroid has `moved` (k,) that far."""
        rows = np.flatnonzero(moved[self.assigned] > 0)
        self.distances[rows] = self.points.distances(rows, self.assigned[rows])
        # Centroids that moved no farther than `limit` can be nearer by at most `limit`. A vector
        # whose margin (bound - distance) is larger need not be compared with them. Centroids that
        # moved farther are compared with all vectors. Take the limit with the fewest distances.
        margin = np.sort(np.sqrt(self.bounds.astype(np.float64)) - np.sqrt(self.distances))
        limits = np.append(0, np.unique(moved[moved > 0]))
        beyond = self.used - np.searchsorted(np.sort(moved), limits, side="right")
        unsure = np.searchsorted(margin, limits)
        limit = limits[np.argmin(beyond * (len(margin) - unsure) + unsure * self.used)]
        if limit > 0:
            bounds = np.maximum(np.sqrt(self.bounds.astype(np.float64)) - limit, 0)
            self.bounds = np.square(bounds).astype(np.float32)
        safe = self.distances <= self.bounds
        rows, columns = np.flatnonzero(safe), np.flatnonzero(moved > limit)
        self._compare(rows, columns, self.bounds[rows])
        rows = np.flatnonzero(~safe)
        self._compare(rows, np.arange(self.used), np.full(len(rows), np.inf, dtype=np.float32))

    def _compare(self, rows: Rows, columns: Rows, bounds: SquaredDistances) -> None:
        """Assign each of `rows` to the nearest of `columns` if that is nearer than its centroid.

        Args:
            bounds: no other centroid that is not among `columns` is nearer than this, squared.
        """
        if not len(rows) or not len(columns):
            return
        nearest, first, second = self.points.nearest(rows, columns)
        before, distances = self.assigned[rows], self.distances[rows]
        # The product proposes and the difference decides: no cancellation can raise the inertia,
        # and equal vectors have distance 0.
        near = np.flatnonzero((nearest != before) & (first < distances + self.points.rounding))
        exact = self.points.distances(rows[near], nearest[near])
        nearer = exact < distances[near]
        switch, exact = near[nearer], exact[nearer]
        second[switch] = np.minimum(second[switch], distances[switch])
        stay = nearest != before
        stay[switch] = False
        second[stay] = first[stay]
        distances[switch] = exact
        self.assigned[rows[switch]] = nearest[switch]
        self.distances[rows] = distances
        # Its own centroid is the nearest one, as far as rounding can tell.
        self.bounds[rows] = np.maximum(np.minimum(bounds, second), distances)
