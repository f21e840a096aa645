"""The ranks of the images of a query's own class, in the ranking of the whole gallery.

With super-classes, the same ranking gives the metrics of graded relevance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmlbench.evaluation.graded import Graded
from dmlbench.evaluation.relevant import find_relevant


class UnusableEmbeddings(ValueError):
    """The embeddings hold no information to rank by, so no metric is defined on them."""


@dataclass(frozen=True)
class Ranking:
    """The ranks that every retrieval metric is computed from, for Q queries.

    An image is relevant to a query if it shares its class and is not the query itself.
    """

    ranks: NDArray[np.int64]
    """(sum of R,) ranks of the relevant images among all other images, from 1, ascending; one query
    after another."""
    counts: NDArray[np.int64]
    """(Q,) R, the number of images in the gallery that are relevant to each query."""
    graded: Graded | None = None
    """The metrics by level; None without super-classes."""


def unit(embeddings: ArrayLike) -> NDArray[np.float32]:
    """Scale each row of `embeddings` (N, D) to unit length, as float32.

    Raises:
        UnusableEmbeddings: a value is NaN or infinite, a vector is zero, or all vectors point in
            the same direction as far as float32 similarities can tell.

    >>> unit([[3, 4], [0, 2]]).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 1.0]]
    """
    vectors = np.asarray(embeddings)
    lengths = finite_lengths(vectors)
    zero = np.count_nonzero(lengths < np.finfo(np.float32).tiny)
    if zero:
        raise UnusableEmbeddings(f"{zero} of {len(vectors)} embeddings are the zero vector")
    scaled = np.empty(vectors.shape, dtype=np.float32)
    np.divide(vectors, lengths[:, None], out=scaled, casting="same_kind")
    refuse_collapsed(scaled)  # |x - y|² = 2 - 2 cos(x, y)
    return scaled


def finite_lengths(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """The Euclidean lengths (N,) of vectors (N, D).

    Raises:
        UnusableEmbeddings: a value is NaN or infinite.
    """
    bad = np.count_nonzero(~np.isfinite(vectors).all(axis=1))
    if bad:
        raise UnusableEmbeddings(f"{bad} of {len(vectors)} embeddings hold NaN or infinity")
    return np.asarray(np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)))


def refuse_collapsed(vectors: NDArray[np.float32]) -> None:
    """Refuse vectors (N, D) whose similarities fall by half their squared distance, if that is too
    little for float32.

    Raises:
        UnusableEmbeddings: all similarities are the same.
    """
    differences = vectors - vectors[:1]
    squares = np.einsum("nd,nd->n", differences, differences)
    if squares.max(initial=0) < 2 * np.finfo(np.float32).eps:
        raise UnusableEmbeddings(f"all {len(vectors)} embeddings are the same vector (collapsed)")


def rank(
    vectors: NDArray[np.float32],
    labels: NDArray[np.integer],
    queries: NDArray[np.integer],
    gallery: NDArray[np.integer],
    *,
    query_vectors: NDArray[np.float32] | None = None,
    levels: Sequence[NDArray[np.integer]] = (),
    threads: int = 1,
    device: str = "cpu",
) -> Ranking:
    """Rank the gallery for each query by descending float32 similarity, then ascending row.

    A query is not part of its own ranking. One pass over the gallery gives everything. It holds the
    similarities and the ranks of a block of queries at once.

    Args:
        vectors: (N, D) of the images, of length 1 at most.
        labels: (N,) class of each.
        queries: (Q,) rows of `vectors`, unique and ascending.
        gallery: (G,) rows of `vectors`, unique and ascending.
        query_vectors: (N, D) of the images as queries, if these are others. The similarity of a
            query and an image is the inner product of their vectors.
        levels: (N,) super-class of each at each level, the nearest level first; for
            `Ranking.graded`.
        threads: of a ranking on a CPU; the ranks do not depend on them.
        device: "cpu" for numpy and faiss; another one, such as "cuda", for torch. The ranks are
            the same, and the graded metrics but for the rounding of float64 sums.

    >>> vectors, rows = unit([[1, 0], [2, 1], [0, 1], [1, 2]]), np.arange(4)
    >>> ranking = rank(vectors, np.array([0, 0, 1, 0]), rows, rows)
    >>> ranking.counts.tolist()  # image 2 is the only one of its class
    [2, 2, 0, 2]
    >>> ranking.ranks.tolist()  # of images 1 and 3 for query 0, and so on
    [1, 2, 1, 2, 2, 3]
    >>> super_class = np.array([5, 5, 5, 7])
    >>> graded = rank(vectors, np.array([0, 0, 1, 0]), rows, rows, levels=[super_class]).graded
    >>> graded.first.tolist()  # by class, by super-class; 0: there is none
    [[1, 1, 0, 2], [1, 1, 2, 0]]
    """
    relevant = find_relevant([labels, *levels], queries, gallery)
    if not relevant.counts.any():
        return Ranking(np.empty(0, dtype=np.int64), relevant.counts)
    query_vectors = vectors if query_vectors is None else query_vectors
    # Each backend has its own file, imported here: faiss and torch take long to import.
    if device == "cpu":
        from dmlbench.evaluation import numpy_ranking

        found = numpy_ranking.rank_relevant(
            vectors, query_vectors, queries, gallery, relevant, threads
        )
    else:
        from dmlbench.evaluation import torch_ranking

        found = torch_ranking.rank_relevant(
            vectors, query_vectors, queries, gallery, relevant, device
        )
    ranks, graded = found
    return Ranking(ranks, relevant.counts, graded)
