"""What k-means computes of its vectors, by numpy with faiss's matrix product, in float32."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
from numpy.typing import NDArray

from dmlbench.evaluation.kmeans import Rows, Squares, rounding

BLOCK, ROWS = 2**22, 2**12  # similarities (16 MB) and vectors that a thread holds at once


class NumpyPoints:
    """See `kmeans.Points`. Blocks, and so all bits, are the same for any number of threads."""

    def __init__(self, vectors: NDArray[np.float32], k: int, threads: int = 1) -> None:
        self.vectors, self.k = vectors, k
        self.lengths = np.einsum("nd,nd->n", vectors, vectors)
        self.rounding = rounding(self.lengths, vectors.shape[1])
        self.centroids = np.zeros((k, vectors.shape[1]), dtype=np.float32)
        # faiss's matrix product runs in as many threads as it is told; numpy's takes every core.
        self.pool = ThreadPoolExecutor(threads, "kmeans", faiss.omp_set_num_threads, (1,))

    def place(self, columns: Rows, rows: Rows) -> None:
        self.centroids[columns] = self.vectors[rows]

    def average(self, columns: Rows, rows: Rows, sizes: Rows) -> NDArray[np.float64]:
        sums = np.zeros((len(columns), self.vectors.shape[1]))
        cluster = np.repeat(np.arange(len(columns)), sizes)
        for part in parts(len(rows), ROWS):
            here, first = np.unique(cluster[part], return_index=True)
            sums[here] += np.add.reduceat(self.vectors[rows[part]].astype(np.float64), first)
        means = (sums / sizes[:, None]).astype(np.float32)
        moved = means - self.centroids[columns]
        self.centroids[columns] = means
        return np.einsum("nd,nd->n", moved, moved, dtype=np.float64)

    def apart(self, rows: Rows, columns: Rows) -> Squares:
        found = np.empty(len(rows), dtype=np.float32)

        def block(part: slice) -> None:
            apart = self.vectors[rows[part]] - self.centroids[columns[part]]
            found[part] = np.einsum("nd,nd->n", apart, apart)

        self._each(block, len(rows), ROWS)
        return found

    def nearest(self, rows: Rows, columns: Rows) -> tuple[Rows, Squares, Squares]:
        nearest = np.empty(len(rows), dtype=np.int64)
        first, second = np.empty((2, len(rows)), dtype=np.float32)
        product = similarity(self.centroids[columns])

        def block(part: slice) -> None:
            found = product(self.vectors[rows[part]])
            each, nearest[part] = np.arange(len(found)), found.argmax(axis=1)
            first[part] = found[each, nearest[part]]
            found[each, nearest[part]] = -np.inf
            second[part] = found.max(axis=1)

        self._each(block, len(rows), min(ROWS, max(1, BLOCK // len(columns))))
        lengths = self.lengths[rows]
        return columns[nearest], squares(lengths, first), squares(lengths, second)

    def between(self, rows: Rows) -> Squares:
        vectors = self.vectors[rows]
        found = self.pool.submit(lambda: similarity(vectors)(vectors)).result()
        return squares(self.lengths[rows, None], found)

    def _each(self, block: Callable[[slice], None], count: int, size: int) -> None:
        for _ in self.pool.map(block, parts(count, size)):
            pass  # raises what the block raised


def parts(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def similarity(
    centroids: NDArray[np.float32],
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """x, vectors -> x c - |c|² / 2 for each centroid c: the larger, the nearer."""
    product = faiss.LinearTransform(centroids.shape[1], len(centroids), True)
    faiss.copy_array_to_vector(centroids.ravel(), product.A)
    faiss.copy_array_to_vector(np.einsum("nd,nd->n", centroids, centroids) / -2, product.b)
    product.is_trained = True
    return product.apply


def squares(lengths: Squares, similarity: NDArray[np.float32]) -> Squares:
    """|x - c|² of |x|² and x c - |c|² / 2."""
    return np.maximum(lengths - 2 * similarity, 0)
