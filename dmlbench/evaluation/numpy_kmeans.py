"""The arithmetic of k-means by numpy and faiss's matrix product, in float32."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
from numpy.typing import NDArray

from dmlbench.evaluation.points import Rows, SquaredDistances, rounding

BLOCK, ROWS = 2**22, 2**12
"""Similarities (16 MB) and vectors that a thread holds at once."""


class NumpyPoints:
    """See `points.Points`. Blocks, and so all bits, are the same for any number of threads."""

    def __init__(self, vectors: NDArray[np.float32], k: int, threads: int = 1) -> None:
        self.vectors, self.k = vectors, k
        self.lengths = np.einsum("nd,nd->n", vectors, vectors)
        self.rounding = rounding(self.lengths, vectors.shape[1])
        self.centroids = np.zeros((k, vectors.shape[1]), dtype=np.float32)
        # faiss's matrix product runs in as many threads as it is given; numpy's takes every core.
        self.pool = ThreadPoolExecutor(threads, "kmeans", faiss.omp_set_num_threads, (1,))

    def place(self, columns: Rows, rows: Rows) -> None:
        self.centroids[columns] = self.vectors[rows]

    def average(self, columns: Rows, rows: Rows, sizes: Rows) -> NDArray[np.float64]:
        sums = np.zeros((len(columns), self.vectors.shape[1]))
        cluster = np.repeat(np.arange(len(columns)), sizes)
        for block in blocks(len(rows), ROWS):
            clusters, first = np.unique(cluster[block], return_index=True)
            sums[clusters] += np.add.reduceat(self.vectors[rows[block]].astype(np.float64), first)
        means = (sums / sizes[:, None]).astype(np.float32)
        moved = means - self.centroids[columns]
        self.centroids[columns] = means
        return np.einsum("nd,nd->n", moved, moved, dtype=np.float64)

    def distances(self, rows: Rows, columns: Rows) -> SquaredDistances:
        distances = np.empty(len(rows), dtype=np.float32)

        def fill(block: slice) -> None:
            difference = self.vectors[rows[block]] - self.centroids[columns[block]]
            distances[block] = np.einsum("nd,nd->n", difference, difference)

        self._for_blocks(fill, len(rows), ROWS)
        return distances

    def nearest(self, rows: Rows, columns: Rows) -> tuple[Rows, SquaredDistances, SquaredDistances]:
        nearest = np.empty(len(rows), dtype=np.int64)
        first, second = np.empty((2, len(rows)), dtype=np.float32)
        similarities_to = similarities(self.centroids[columns])

        def fill(block: slice) -> None:
            similarity = similarities_to(self.vectors[rows[block]])
            every, nearest[block] = np.arange(len(similarity)), similarity.argmax(axis=1)
            first[block] = similarity[every, nearest[block]]
            similarity[every, nearest[block]] = -np.inf
            second[block] = similarity.max(axis=1)

        self._for_blocks(fill, len(rows), min(ROWS, max(1, BLOCK // len(columns))))
        lengths = self.lengths[rows]
        return columns[nearest], from_similarity(lengths, first), from_similarity(lengths, second)

    def pairwise_distances(self, rows: Rows) -> SquaredDistances:
        vectors = self.vectors[rows]
        similarity = self.pool.submit(lambda: similarities(vectors)(vectors)).result()
        return from_similarity(self.lengths[rows, None], similarity)

    def _for_blocks(self, fill: Callable[[slice], None], count: int, size: int) -> None:
        """Call `fill` for all blocks, in the threads of the pool."""
        for _ in self.pool.map(fill, blocks(count, size)):
            pass  # raises what `fill` raised


def blocks(count: int, size: int) -> list[slice]:
    """Slices of `size` that cover `count` rows."""
    return [slice(start, start + size) for start in range(0, count, size)]


def similarities(
    centroids: NDArray[np.float32],
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The function from vectors x to x c - |c|² / 2 for each centroid c: larger is nearer."""
    product = faiss.LinearTransform(centroids.shape[1], len(centroids), True)
    faiss.copy_array_to_vector(centroids.ravel(), product.A)
    faiss.copy_array_to_vector(np.einsum("nd,nd->n", centroids, centroids) / -2, product.b)
    product.is_trained = True
    return product.apply


def from_similarity(lengths: SquaredDistances, similarity: NDArray[np.float32]) -> SquaredDistances:
    """|x - c|² from |x|² and x c - |c|² / 2."""
    return np.maximum(lengths - 2 * similarity, 0)
