"""The ranking of a gallery by numpy, with faiss's matrix product."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from dmlbench.evaluation.ranking import Relevant

BLOCK = 2**24  # similarities that a thread holds at once (64 MB): memory does not grow with Q x G
MANY, BUCKETS = 2048, 1024  # similarities that are sorted at once, or first counted in buckets


def ranks_and_nearest(
    vectors: NDArray[np.float32],
    queries: NDArray[np.integer],
    gallery: NDArray[np.integer],
    relevant: Relevant,
    nearest: bool,
    threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`Ranking.ranks`, and where in the gallery each query's nearest image is (or (0,))."""
    import faiss

    images, own, counts = vectors[gallery], relevant.own, relevant.counts
    ranks = np.empty(counts.sum(), dtype=np.int64)
    first = np.empty(len(queries) if nearest else 0, dtype=np.int64)
    ends, place = counts.cumsum(), np.argsort(relevant.by_class)
    # Rounding differs with an image's place in the matrix, even between equal images: errors of up
    # to 4e-7 were seen in 512 dimensions. What is no further apart than `tie` is computed exactly,
    # one query at a time, or for many queries at once where there is much of it.
    tie = np.finfo(np.float32).eps * np.float32(max(8, np.sqrt(images.shape[1]) / 2))
    much = len(images) // 8
    # faiss's matrix product runs in as many threads as it is told; numpy's takes every core.
    product = faiss.LinearTransform(images.shape[1], len(images), False)
    faiss.copy_array_to_vector(images.ravel(), product.A)
    product.is_trained = True
    size = max(1, min(BLOCK // len(images), -(-len(queries) // threads)))

    def work(thread: int) -> None:
        """Rank this thread's blocks of queries."""
        similarities = np.empty((size, len(images)), dtype=np.float32)
        for start in range(thread * size, len(queries), threads * size):
            rows = np.arange(start, min(start + size, len(queries)))
            block = vectors[queries[rows]]
            pointers = faiss.swig_ptr(block), faiss.swig_ptr(similarities)
            product.apply_noalloc(len(rows), *pointers)  # type: ignore[attr-defined]
            late = [row for row in rows.tolist() if not ranked(row, similarities[row - start])]
            if late:
                _products(vectors[queries[late]], images, similarities)
                for row, similarity in zip(late, similarities, strict=False):
                    rank_exactly(row, similarity)

    def members(row: int, similarity: NDArray[np.float32]) -> NDArray[np.int64]:
        """The images of the query's class; the query itself is put last of all."""
        if own[row] >= 0:
            similarity[own[row]] = -np.inf
        return relevant.by_class[relevant.lowest[row] : relevant.highest[row]]

    def ranked(row: int, similarity: NDArray[np.float32]) -> bool:
        """Whether the query could be ranked, because not too many images are within a tie."""

        def settle(tied: NDArray[np.int64]) -> NDArray[np.bool_]:
            where = place[rising(row, tied)]
            return (where >= relevant.lowest[row]) & (where < relevant.highest[row])

        its = members(row, similarity)
        if counts[row]:
            among = np.sort(similarity[its])[-counts[row] :]
            found = _ranks(similarity, among, tie, settle, much)
            if found is None:
                return False
            ranks[ends[row] - counts[row] : ends[row]] = found
        if nearest:
            near = np.flatnonzero(similarity >= similarity.max() - tie)
            if len(near) > max(1, much):
                return False
            first[row] = near[0] if len(near) == 1 else rising(row, near)[-1]
        return True

    def rising(row: int, tied: NDArray[np.int64]) -> NDArray[np.int64]:
        exact = np.empty((1, len(tied)), dtype=np.float32)
        _products(vectors[queries[[row]]], images[tied], exact)
        return tied[np.lexsort((-tied, exact[0]))]

    def rank_exactly(row: int, similarity: NDArray[np.float32]) -> None:
        its = members(row, similarity)
        # An integer that falls along the ranking: a float's bits are ordered as the float is.
        bits = similarity.view(np.int32).astype(np.int64)
        score = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits) * 2**32 - np.arange(len(bits))
        if nearest:
            first[row] = score.argmax()
        among, score = np.sort(score[its])[len(its) - counts[row] :], np.sort(score)
        ranks[ends[row] - counts[row] : ends[row]] = (
            len(score) - np.searchsorted(score, among)[::-1]
        )

    with ThreadPoolExecutor(threads, "rank", faiss.omp_set_num_threads, (1,)) as pool:
        list(pool.map(work, range(threads)))
    return ranks, first


def _ranks(
    similarity: NDArray[np.float32],
    relevant: NDArray[np.float32],
    tie: np.float32,
    settle: Callable[[NDArray[np.int64]], NDArray[np.bool_]],
    much: int,
) -> NDArray[np.int64] | None:
    """Ranks (R,), rising, of the `relevant` similarities (R,), rising, among all (G,).

    Similarities no more than `tie` apart may be in any order: `settle` takes the images that have
    such and says whether each is relevant, from the least to the most similar. None if they are
    more than `much`.
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
            if len(span) > much:
                return None
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


def _products(
    queries: NDArray[np.float32], images: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Inner products of `queries` (Q, D) and `images` (G, D) to the first Q rows of `out`: exact,
    then rounded once."""
    exact = queries.astype(np.float64)[:, None]
    for start in range(0, len(images), 256):  # what fits the cache
        part = slice(start, start + 256)
        out[: len(queries), part] = np.vecdot(images[part].astype(np.float64), exact)
