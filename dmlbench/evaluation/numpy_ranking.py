"""The ranking of a gallery by numpy, with faiss's matrix product."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from dmlbench.evaluation.graded import Graded
from dmlbench.evaluation.numpy_graded import Grading
from dmlbench.evaluation.relevant import Relevant
from dmlbench.evaluation.similarities import ascending_integers, exact_similarities

BLOCK = 2**24
"""Similarities that a thread holds at once (64 MB): memory does not grow with Q x G."""
MANY = 2048
"""More similarities than this are counted in buckets before they are sorted."""
BUCKETS = 1024


def rank_relevant(
    vectors: NDArray[np.float32],
    queries: NDArray[np.integer],
    gallery: NDArray[np.integer],
    relevant: Relevant,
    threads: int,
) -> tuple[NDArray[np.int64], Graded | None]:
    """`Ranking.ranks` and `Ranking.graded`. See `ranking.rank` for the arguments."""
    import faiss

    images, own, counts = vectors[gallery], relevant.own, relevant.counts
    ranks = np.empty(counts.sum(), dtype=np.int64)
    ends, by_class = counts.cumsum(), relevant.by_class[0]
    lowest, highest = relevant.lowest[0], relevant.highest[0]
    position_by_class = np.argsort(by_class)
    # Rounding depends on an image's place in the matrix, even between equal images: errors of up
    # to 4e-7 were seen in 512 dimensions. Similarities that differ by no more than `tie` are
    # computed exactly: for one query at a time, or for many queries at once if many images tie.
    tie = np.finfo(np.float32).eps * np.float32(max(8, np.sqrt(images.shape[1]) / 2))
    many_ties = len(images) // 8
    # faiss's matrix product runs in as many threads as it is given; numpy's takes every core.
    product = faiss.LinearTransform(images.shape[1], len(images), False)
    faiss.copy_array_to_vector(images.ravel(), product.A)
    product.is_trained = True
    size = max(1, min(BLOCK // len(images), -(-len(queries) // threads)))
    grading = None
    if relevant.levels > 1:
        grading = Grading(vectors[queries], images, relevant, ranks, tie, many_ties)

    def rank_blocks(thread: int) -> None:
        """Rank this thread's blocks of queries."""
        similarities = np.empty((size, len(images)), dtype=np.float32)
        for start in range(thread * size, len(queries), threads * size):
            rows = np.arange(start, min(start + size, len(queries)))
            block = vectors[queries[rows]]
            pointers = faiss.swig_ptr(block), faiss.swig_ptr(similarities)
            product.apply_noalloc(len(rows), *pointers)  # type: ignore[attr-defined]
            if grading:
                grading.grade(rows, similarities[: len(rows)])
                continue
            postponed = [
                row for row in rows.tolist() if not rank_query(row, similarities[row - start])
            ]
            if postponed:
                exact_similarities(vectors[queries[postponed]], images, similarities)
                for row, similarity in zip(postponed, similarities, strict=False):
                    rank_exactly(row, similarity)

    def class_members(row: int, similarity: NDArray[np.float32]) -> NDArray[np.int64]:
        """Places of the images of the query's class. The query itself is moved to the very end."""
        if own[row] >= 0:
            similarity[own[row]] = -np.inf
        return by_class[lowest[row] : highest[row]]

    def rank_query(row: int, similarity: NDArray[np.float32]) -> bool:
        """Rank the gallery for one query; return False, and rank nothing, if too many tie."""

        def settle(tied: NDArray[np.int64]) -> NDArray[np.bool_]:
            positions = position_by_class[sort_exactly(row, tied)]
            return (positions >= lowest[row]) & (positions < highest[row])

        members = class_members(row, similarity)
        if counts[row]:
            relevant_similarities = np.sort(similarity[members])[-counts[row] :]
            query_ranks = _ranks(similarity, relevant_similarities, tie, settle, many_ties)
            if query_ranks is None:
                return False
            ranks[ends[row] - counts[row] : ends[row]] = query_ranks
        return True

    def sort_exactly(row: int, tied: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places `tied`, from the least to the most similar to the query."""
        exact = np.empty((1, len(tied)), dtype=np.float32)
        exact_similarities(vectors[queries[[row]]], images[tied], exact)
        return tied[np.lexsort((-tied, exact[0]))]

    def rank_exactly(row: int, similarity: NDArray[np.float32]) -> None:
        """Rank the gallery for one query by similarities that are exact."""
        members = class_members(row, similarity)
        score = ascending_integers(similarity) * 2**32 - np.arange(len(similarity))
        relevant_scores = np.sort(score[members])[len(members) - counts[row] :]
        score = np.sort(score)
        ranks[ends[row] - counts[row] : ends[row]] = (
            len(score) - np.searchsorted(score, relevant_scores)[::-1]
        )

    with ThreadPoolExecutor(threads, "rank", faiss.omp_set_num_threads, (1,)) as pool:
        list(pool.map(rank_blocks, range(threads)))
    return ranks, grading.graded if grading else None


def _ranks(
    similarity: NDArray[np.float32],
    relevant: NDArray[np.float32],
    tie: np.float32,
    settle: Callable[[NDArray[np.int64]], NDArray[np.bool_]],
    many_ties: int,
) -> NDArray[np.int64] | None:
    """Ranks of the relevant similarities among all; None if more than `many_ties` images tie.

    Args:
        similarity: (G,) of all images.
        relevant: (R,) of the relevant ones, ascending.
        tie: similarities that differ by no more than this may be in any order.
        settle: takes the places of tied images, and returns whether each is relevant, from the
            least to the most similar one.
        many_ties: most tied images that are settled here.

    Returns:
        (R,) ranks from 1, ascending.
    """
    near = np.flatnonzero(similarity >= relevant[0] - tie)
    values, above = similarity[near], np.zeros(len(relevant), dtype=np.int64)
    if len(near) > MANY:
        kept, above = _near_relevant(values, relevant, tie)
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
            spans = zip(bottom[mixed], top[mixed], strict=True)
            tied = np.concatenate([np.arange(low, high) for low, high in spans])
            if len(tied) > many_ties:
                return None
            place[np.repeat(mixed, size)] = tied[settle(near[np.argsort(values)[tied]])]
    return (above + len(ordered) - place)[::-1]


def _near_relevant(
    values: NDArray[np.float32], relevant: NDArray[np.float32], tie: np.float32
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The values that may be within `tie` of a relevant one, and how many others are above.

    Counting in buckets is faster than sorting all values. No value is below the first bucket, those
    above all relevant ones are in the last, and a tie reaches no further than the next bucket.

    Returns:
        Places of the values, and for each of the R relevant ones the number of other values above.
    """
    lowest = relevant[0] - 2 * tie
    scale = 1 / max((relevant[-1] - relevant[0]) / BUCKETS, 4 * tie)

    def bucket(values: NDArray[np.float32]) -> NDArray[np.intp]:
        return np.minimum((values - lowest) * scale, BUCKETS + 1).astype(np.intp)

    bucket_of_value = bucket(values)
    is_near = np.zeros(BUCKETS + 2, dtype=bool)
    is_near[bucket(relevant - tie)] = is_near[bucket(relevant + tie)] = True
    others = np.bincount(bucket_of_value, minlength=len(is_near)) * ~is_near
    above = others[::-1].cumsum()[::-1]
    return np.flatnonzero(is_near[bucket_of_value]), above[bucket(relevant)]
