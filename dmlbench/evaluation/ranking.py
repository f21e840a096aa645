"""Where the images of its own class stand in each query's ranking of the whole gallery."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


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
    scaled = np.empty(vectors.shape, dtype=np.float32)
    np.divide(vectors, lengths[:, None], out=scaled, casting="same_kind")
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
    # Each in a file of its own: faiss and torch take long to import.
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
