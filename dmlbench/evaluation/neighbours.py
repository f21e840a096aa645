"""Exact nearest neighbours on the unit sphere."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK = 1024  # queries searched at once: bounds the memory of the candidates
SLACK = 8  # candidates beyond k, so that ties around rank k are settled as well
NEAR_TIE = 1e-6  # above the rounding error of a float32 inner product of unit vectors


class UnusableEmbeddings(ValueError):
    """The embeddings hold no information to rank by, so no metric is defined on them."""


@contextmanager
def omp_threads(threads: int) -> Iterator[None]:
    """Let faiss use `threads` threads, and restore the process's setting afterwards."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def unit(embeddings: ArrayLike) -> NDArray[np.float32]:
    """Scale each row of `embeddings` (N, D) to unit length, as float32.

    Raises UnusableEmbeddings if a value is NaN or infinite, if a vector is zero, or if all
    vectors point the same way as far as float32 similarities can tell.
    """
    vectors = np.asarray(embeddings)
    bad = np.count_nonzero(~np.isfinite(vectors).all(axis=1))
    if bad:
        raise UnusableEmbeddings(f"{bad} of {len(vectors)} embeddings hold NaN or infinity")
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    zero = np.count_nonzero(lengths < np.finfo(np.float32).tiny)
    if zero:
        raise UnusableEmbeddings(f"{zero} of {len(vectors)} embeddings are the zero vector")
    scaled = np.ascontiguousarray(vectors / lengths[:, None], dtype=np.float32)
    # |x - y|² = 2 - 2 cos(x, y): below 2 eps, every similarity is 1 in float32.
    apart = scaled - scaled[:1]
    if np.einsum("nd,nd->n", apart, apart).max(initial=0) < 2 * np.finfo(np.float32).eps:
        raise UnusableEmbeddings(f"all {len(vectors)} embeddings are the same vector (collapsed)")
    return scaled


def nearest_neighbours(
    queries: NDArray[np.float32],
    query_ids: NDArray[np.integer],
    gallery: NDArray[np.float32],
    gallery_ids: NDArray[np.integer],
    k: int,
    threads: int = 1,
) -> NDArray[np.int32]:
    """Rows of the `k` gallery images most similar to each query, nearest first: (Q, k).

    `queries` (Q, D) and `gallery` (G, D) are unit vectors with unique ids. The gallery image with
    the query's own id is never returned; -1 fills the row where the gallery has no more images.

    The order is by falling float32 similarity, then rising id. A float32 matrix product rounds
    equal pairs differently depending on its tiling, hence on the number of threads, so near ties
    are recomputed exactly. Only the choice among more than `SLACK` ties at rank k is left to faiss.
    """
    import faiss

    candidates = min(k + 1 + SLACK, len(gallery))
    nearest = np.full((len(queries), k), -1, dtype=np.int32)
    with omp_threads(threads):
        for start in range(0, len(queries), BLOCK):
            block = slice(start, start + BLOCK)
            similarity, rows = faiss.knn(
                queries[block], gallery, candidates, faiss.METRIC_INNER_PRODUCT
            )
            _settle_near_ties(similarity, rows, queries[block], gallery)
            ids = gallery_ids[rows]
            own = ids == query_ids[block, None]
            similarity[own], rows[own] = -np.inf, -1
            order = np.lexsort((ids, -similarity), axis=1)[:, :k]
            nearest[block, : order.shape[1]] = np.take_along_axis(rows, order, axis=1)
    return nearest


def _settle_near_ties(
    similarity: NDArray[np.float32],
    rows: NDArray[np.int64],
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
) -> None:
    """Replace, in place, similarities that almost equal the one beside them by exact ones."""
    close = similarity[:, :-1] - similarity[:, 1:] < NEAR_TIE
    unsure = np.zeros(similarity.shape, dtype=bool)
    unsure[:, :-1] |= close
    unsure[:, 1:] |= close
    query, rank = np.nonzero(unsure)
    for part in np.array_split(np.arange(len(query)), len(query) // 2**15 + 1):
        q, r = query[part], rank[part]
        similarity[q, r] = np.einsum("nd,nd->n", queries[q], gallery[rows[q, r]], dtype=np.float64)
