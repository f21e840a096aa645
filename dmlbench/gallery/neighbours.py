"""The nearest images of each query, in bounded memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmlbench.gallery.ranked_images import Rows

MOST_SIMILARITIES = 2**23
"""Similarities that are held at once: 32 MB."""


class Neighbours(NamedTuple):
    """What is nearest to each of Q queries. A query is not its own neighbour."""

    nearest: Rows
    """(Q, k) rows of the nearest images, the nearest first; of equal ones, the first row."""
    similarities: NDArray[np.float32]
    """(Q, k) cosines, or what else ranks the images."""
    own: Rows
    """(Q,) row of the nearest image of the query's class; -1 if there is no other image of it."""
    margins: NDArray[np.float32]
    """(Q,) similarity to the nearest image of its class minus that to the nearest other image:
    negative where the nearest image is wrong. NaN if one of them does not exist."""


def find_neighbours(
    vectors: NDArray[np.float32],
    labels: Rows,
    queries: Rows,
    gallery: Rows,
    k: int,
    query_vectors: NDArray[np.float32] | None = None,
) -> Neighbours:
    """The `k` nearest images of each query, fewer if the gallery is smaller.

    Args:
        vectors: (N, D) of the images.
        labels: (N,) class of each.
        queries: (Q,) rows of `vectors`.
        gallery: (G,) rows of `vectors`, unique and ascending.
        query_vectors: (N, D) of the images as queries, if these are others.

    >>> angles = np.deg2rad([0, 10, 15, 90])
    >>> vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    >>> rows = np.arange(4)
    >>> found = find_neighbours(vectors, np.array([0, 1, 0, 1]), rows, rows, k=2)
    >>> found.nearest.tolist()
    [[1, 2], [2, 0], [1, 0], [2, 1]]
    >>> found.own.tolist()
    [2, 3, 0, 1]
    """
    k = max(1, min(k, len(gallery) - bool(np.isin(queries, gallery).any())))
    chunk = max(1, MOST_SIMILARITIES // len(gallery))
    query_vectors = vectors if query_vectors is None else query_vectors
    ranked = vectors if len(gallery) == len(vectors) else vectors[gallery]
    parts = [
        _of_chunk(
            query_vectors[queries[start : start + chunk]] @ ranked.T,
            labels,
            queries[start : start + chunk],
            gallery,
            k,
        )
        for start in range(0, len(queries), chunk)
    ]
    return Neighbours(*map(np.concatenate, zip(*parts, strict=True)))


def _of_chunk(
    similarities: NDArray[np.float32], labels: Rows, queries: Rows, gallery: Rows, k: int
) -> Neighbours:
    """Those of some queries, from their `similarities` (queries, G), which change."""
    similarities[queries[:, None] == gallery] = -np.inf
    # Equal similarities are taken in the order of their rows, so all that equal the k-th compete.
    places = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(similarities, places, axis=1)
    lowest = values.min(axis=1)
    for query in np.flatnonzero((similarities >= lowest[:, None]).sum(axis=1) > k):
        better = np.flatnonzero(similarities[query] >= lowest[query])
        order = np.argsort(-similarities[query, better], kind="stable")[:k]
        places[query], values[query] = better[order], similarities[query, better[order]]
    order = np.lexsort((places, -values), axis=1)
    is_own = labels[queries][:, None] == labels[gallery]
    own = np.where(is_own, similarities, -np.inf)
    best_own = own.argmax(axis=1)
    to_own = own[np.arange(len(queries)), best_own]
    to_other = np.where(is_own, -np.inf, similarities).max(axis=1)
    exist = np.isfinite(to_own) & np.isfinite(to_other)
    return Neighbours(
        gallery[np.take_along_axis(places, order, axis=1)],
        np.take_along_axis(values, order, axis=1),
        np.where(np.isfinite(to_own), gallery[best_own], -1),
        np.subtract(to_own, to_other, out=np.full(len(queries), np.nan, "f4"), where=exist),
    )
