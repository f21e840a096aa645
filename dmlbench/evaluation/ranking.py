"""Where the images of its own class stand in each query's ranking of the whole gallery."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK = 2**23  # similarities that a thread holds at once (32 MB): memory does not grow with Q x G
MANY, BUCKETS = 2048, 1024  # similarities that are sorted at once, or first counted in buckets


class UnusableEmbeddings(ValueError):
    """The embeddings hold no information to rank by, so no metric is defined on them."""


@dataclass(frozen=True)
class Ranking:
    """What every retrieval metric is computed from.

    An image is relevant to a query if it shares its class and is not the query itself. `counts`
    (Q,): R, how many relevant images the gallery has for each query. `ranks` (sum of R,): where
    they stand in the ranking of all other images, from 1, rising; one query after another.
    `nearest` (Q,): the first of each query's ranking, as a row; (0,) where nobody asked.
    """

    ranks: NDArray[np.int64]
    counts: NDArray[np.int64]
    nearest: NDArray[np.int64]


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


@dataclass(frozen=True)
class Relevant:
    """Where in a gallery the class of each of Q queries is: at `by_class[lowest[q]:highest[q]]`,
    the query itself at `own[q]` of the gallery, which is -1 if it is not there."""

    by_class: NDArray[np.int64]
    lowest: NDArray[np.int64]
    highest: NDArray[np.int64]
    own: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        return self.highest - self.lowest - (self.own >= 0)


def rank(
    vectors: NDArray[np.float32],
    labels: NDArray[np.integer],
    queries: NDArray[np.integer],
    gallery: NDArray[np.integer],
    threads: int = 1,
    nearest: bool = False,
    device: str = "cpu",
) -> Ranking:
    """Rank the gallery for each query by falling float32 similarity, then rising row.

    `vectors` (N, D) are unit vectors, `labels` (N,) their classes; `queries` (Q,) and `gallery`
    (G,) are rows of them, each unique and rising. A query is no part of its own ranking. `nearest`:
    tell each query's nearest image too, which takes 3 % longer. On a `device` other than "cpu",
    torch does the work; the ranks are the same.
    """
    classes = labels[gallery]
    by_class = np.argsort(classes, kind="stable")
    lowest = np.searchsorted(classes, labels[queries], "left", sorter=by_class)
    highest = np.searchsorted(classes, labels[queries], "right", sorter=by_class)
    own = np.where(np.isin(queries, gallery), np.searchsorted(gallery, queries), -1)
    relevant = Relevant(by_class, lowest, highest, own)
    if not relevant.counts.any():
        none = np.empty(0, dtype=np.int64)
        return Ranking(none, relevant.counts, none)
    if device == "cpu":
        ranks, first = _by_numpy(vectors, labels, queries, gallery, relevant, threads, nearest)
    else:
        from dmlbench.evaluation.torch_ranking import ranks_and_nearest  # torch takes seconds

        ranks, first = ranks_and_nearest(vectors, queries, gallery, relevant, nearest, device)
    return Ranking(ranks, relevant.counts, gallery[first].astype(np.int64))


def _by_numpy(
    vectors: NDArray[np.float32],
    labels: NDArray[np.integer],
    queries: NDArray[np.integer],
    gallery: NDArray[np.integer],
    relevant: Relevant,
    threads: int,
    nearest: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`Ranking.ranks`, and where in the gallery each query's nearest image is (or (0,))."""
    import faiss

    images, classes = vectors[gallery], labels[gallery]
    by_class, lowest, highest = relevant.by_class, relevant.lowest, relevant.highest
    own, counts = relevant.own, relevant.counts
    # Rounding differs with an image's place in the matrix, even between equal images: errors of up
    # to 4e-7 were seen in 512 dimensions. What is no further apart than `tie` is computed exactly.
    tie = np.finfo(np.float32).eps * np.float32(max(8, np.sqrt(images.shape[1]) / 2))
    # faiss's matrix product runs in as many threads as it is told; numpy's takes every core.
    product = faiss.LinearTransform(images.shape[1], len(images), False)
    faiss.copy_array_to_vector(images.ravel(), product.A)
    product.is_trained = True

    def block(start: int) -> tuple[list[NDArray[np.int64]], list[np.int64]]:
        rows = np.arange(start, min(start + size, len(queries)))
        similarities = product.apply(vectors[queries[rows]])
        inside = np.flatnonzero(own[rows] >= 0)
        similarities[inside, own[rows[inside]]] = -np.inf
        found = [ranks(row, similarities[row - start]) for row in rows[counts[rows] > 0]]
        each = zip(rows.tolist(), similarities, strict=True) if nearest else ()
        return found, [first_of(row, similarity) for row, similarity in each]

    def rising(row: int, tied: NDArray[np.int64]) -> NDArray[np.int64]:
        exact = _inner_products(vectors[queries[row]], images, tied)
        return tied[np.lexsort((-tied, exact))]

    def first_of(row: int, similarity: NDArray[np.float32]) -> np.int64:
        near = np.flatnonzero(similarity >= similarity.max() - tie)
        return near[0] if len(near) == 1 else rising(row, near)[-1]

    def ranks(row: int, similarity: NDArray[np.float32]) -> NDArray[np.int64]:
        def settle(tied: NDArray[np.int64]) -> NDArray[np.bool_]:
            return classes[rising(row, tied)] == labels[queries[row]]

        relevant = np.sort(similarity[by_class[lowest[row] : highest[row]]])
        return _ranks(similarity, relevant[len(relevant) - counts[row] :], tie, settle)

    size = max(1, BLOCK // len(images))
    with ThreadPoolExecutor(threads, "rank", faiss.omp_set_num_threads, (1,)) as pool:
        found, firsts = zip(*pool.map(block, range(0, len(queries), size)), strict=True)
        return np.concatenate([*chain(*found)]), np.array([*chain(*firsts)], dtype=np.int64)


def _ranks(
    similarity: NDArray[np.float32],
    relevant: NDArray[np.float32],
    tie: np.float32,
    settle: Callable[[NDArray[np.int64]], NDArray[np.bool_]],
) -> NDArray[np.int64]:
    """Ranks (R,), rising, of the `relevant` similarities (R,), rising, among all (G,).

    Similarities no more than `tie` apart may be in any order: `settle` takes the images that have
    such and says whether each is relevant, from the least to the most similar.
    """
    near = np.flatnonzero(similarity >= relevant[0] - tie)
    values, above = similarity[near], np.zeros(len(relevant), dtype=np.int64)
    if len(near) > MANY:
        kept, above = _around(values, relevant, tie)
        near, values = near[kept], values[kept]
    ordered = np.sort(values)
    place = np.searchsorted(ordered, relevant - tie)
    end = np.searchsorted(ordered, relevant + tie, "right")
    if np.any(end - place > 1):
        # Relevant images whose ties overlap are settled together: start to stop among the
        # relevant, bottom to top among all.
        start = np.flatnonzero(np.append(True, place[1:] >= end[:-1]))
        stop = np.append(start[1:], len(relevant))
        bottom, top, size = place[start], end[stop - 1], stop - start
        place = np.arange(len(relevant)) + np.repeat(bottom - start, size)
        mixed = top - bottom > size  # with images in between that are not relevant
        if mixed.any():
            ends = zip(bottom[mixed], top[mixed], strict=True)
            span = np.concatenate([np.arange(low, high) for low, high in ends])
            place[np.repeat(mixed, size)] = span[settle(near[np.argsort(values)[span]])]
    return (above + len(ordered) - place)[::-1]


def _around(
    values: NDArray[np.float32], relevant: NDArray[np.float32], tie: np.float32
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which values may be within `tie` of a relevant one, and how many others are above each (R,).

    Counting in buckets spares sorting all: no value is below the first bucket, those above all
    relevant ones are in the last, and a tie reaches no further than the next bucket.
    """
    lowest = relevant[0] - 2 * tie
    scale = 1 / max((relevant[-1] - relevant[0]) / BUCKETS, 4 * tie)

    def bucket(values: NDArray[np.float32]) -> NDArray[np.intp]:
        return np.minimum((values - lowest) * scale, BUCKETS + 1).astype(np.intp)

    where = bucket(values)
    around = np.zeros(BUCKETS + 2, dtype=bool)
    around[bucket(relevant - tie)] = around[bucket(relevant + tie)] = True
    others = np.bincount(where, minlength=len(around)) * ~around
    return np.flatnonzero(around[where]), others[::-1].cumsum()[::-1][bucket(relevant)]


def _inner_products(
    query: NDArray[np.float32], images: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Of `query` (D,) and the given rows of `images`: exact, then rounded once."""
    exact = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), 256):  # what fits the cache
        part = slice(start, start + 256)
        exact[part] = np.vecdot(images[rows[part]].astype(np.float64), query.astype(np.float64))
    return exact
