"""The ranks of the images of a query's own class, in the ranking of the whole gallery."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmlbench.evaluation.relevant import Relevant


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
    nearest: NDArray[np.int64]
    """(Q,) the nearest image of each query, as a row; (0,) if it was not asked for."""


def unit(embeddings: ArrayLike) -> NDArray[np.float32]:
    """Scale each row of `embeddings` (N, D) to unit length, as float32.

    Raises:
        UnusableEmbeddings: a value is NaN or infinite, a vector is zero, or all vectors point in
            the same direction as far as float32 similarities can tell.

    >>> unit([[3, 4], [0, 2]]).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 1.0]]
    """
    vectors = np.asarray(embeddings)
    bad = np.count_nonzero(~np.isfinite(vectors).all(axis=1))
    if bad:
        raise UnusableEmbeddings(f"{bad} of {len(vectors)} embeddings hold NaN or infinity")
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    zero = np.count_nonzero(lengths < np.finfo(np.float32).tiny)
    if zero:
        raise UnusableEmbeddings(f"{zero} of {len(vectors)} embeddings are the zero vector")
    scaled = np.empty(vectors.shape, dtype=np.float32)
    np.divide(vectors, lengths[:, None], out=scaled, casting="same_kind")
    # |x - y|² = 2 - 2 cos(x, y): below 2 eps, every similarity is 1 in float32.
    differences = scaled - scaled[:1]
    squares = np.einsum("nd,nd->n", differences, differences)
    if squares.max(initial=0) < 2 * np.finfo(np.float32).eps:
        raise UnusableEmbeddings(f"all {len(vectors)} embeddings are the same vector (collapsed)")
    return scaled


def rank(
    vectors: NDArray[np.float32],
    labels: NDArray[np.integer],
    queries: NDArray[np.integer],
    gallery: NDArray[np.integer],
    *,
    threads: int = 1,
    nearest: bool = False,
    device: str = "cpu",
) -> Ranking:
    """Rank the gallery for each query by descending float32 similarity, then ascending row.

    A query is not part of its own ranking.

    Args:
        vectors: (N, D) unit vectors.
        labels: (N,) class of each.
        queries: (Q,) rows of `vectors`, unique and ascending.
        gallery: (G,) rows of `vectors`, unique and ascending.
        threads: of a ranking on a CPU; the ranks do not depend on them.
        nearest: compute `Ranking.nearest` as well, which takes 3 % longer.
        device: "cpu" for numpy and faiss; another one, such as "cuda", for torch. The ranks are
            the same.

    >>> vectors, rows = unit([[1, 0], [2, 1], [0, 1], [1, 2]]), np.arange(4)
    >>> ranking = rank(vectors, np.array([0, 0, 1, 0]), rows, rows, nearest=True)
    >>> ranking.counts.tolist()  # image 2 is the only one of its class
    [2, 2, 0, 2]
    >>> ranking.ranks.tolist()  # of images 1 and 3 for query 0, and so on
    [1, 2, 1, 2, 2, 3]
    >>> ranking.nearest.tolist()
    [1, 0, 3, 2]
    """
    classes = labels[gallery]
    by_class = np.argsort(classes, kind="stable")
    lowest = np.searchsorted(classes, labels[queries], "left", sorter=by_class)
    highest = np.searchsorted(classes, labels[queries], "right", sorter=by_class)
    own = np.where(np.isin(queries, gallery), np.searchsorted(gallery, queries), -1)
    relevant = Relevant(by_class, lowest, highest, own)
    if not relevant.counts.any():
        empty = np.empty(0, dtype=np.int64)
        return Ranking(empty, relevant.counts, empty)
    # Each backend has its own file, imported here: faiss and torch take long to import.
    if device == "cpu":
        from dmlbench.evaluation import numpy_ranking

        ranks, first = numpy_ranking.ranks_and_nearest(
            vectors, queries, gallery, relevant, nearest, threads
        )
    else:
        from dmlbench.evaluation import torch_ranking

        ranks, first = torch_ranking.ranks_and_nearest(
            vectors, queries, gallery, relevant, nearest, device
        )
    return Ranking(ranks, relevant.counts, gallery[first].astype(np.int64))
