"""Retrieval metrics on lists of neighbours: Recall@K, R-Precision and MAP@R.

R is the number of images in the gallery that share the query's class, the query itself aside.
A query with R = 0 has no right answer ("lone"): R-Precision and MAP@R are undefined there and
leave it out, as pytorch-metric-learning does; Recall@K counts it as a miss, as the papers' codes
do (they divide by the number of all queries).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Relevance = NDArray[np.bool_]
Counts = NDArray[np.integer[Any]]


def relevance(
    nearest: NDArray[np.integer],
    query_labels: NDArray[np.integer],
    gallery_labels: NDArray[np.integer],
) -> Relevance:
    """Whether each neighbour (row of the gallery, -1 for none) shares its query's class: (Q, k)."""
    return (gallery_labels[nearest] == query_labels[:, None]) & (nearest >= 0)


def relevant_counts(
    query_ids: NDArray[np.integer],
    query_labels: NDArray[np.integer],
    gallery_ids: NDArray[np.integer],
    gallery_labels: NDArray[np.integer],
) -> Counts:
    """R of each query: (Q,)."""
    size = max(query_labels.max(initial=0), gallery_labels.max(initial=0)) + 1
    return np.bincount(gallery_labels, minlength=size)[query_labels] - np.isin(
        query_ids, gallery_ids
    )


def recall_at(k: int, relevant: Relevance) -> float:
    """Fraction of all queries with an image of their class among the `k` nearest."""
    return float(relevant[:, :k].any(axis=1).mean())


def r_precision(relevant: Relevance, counts: Counts) -> float:
    """Mean fraction of the R nearest that share the query's class."""
    hits, counts = _within_r(relevant, counts)
    return float((hits.sum(axis=1) / counts).mean())


def map_at_r(relevant: Relevance, counts: Counts) -> float:
    """Mean average precision over the R nearest (Musgrave et al., ECCV 2020, eq. 1-2)."""
    hits, counts = _within_r(relevant, counts)
    precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    return float(((precision * hits).sum(axis=1) / counts).mean())


def _within_r(relevant: Relevance, counts: Counts) -> tuple[Relevance, Counts]:
    """The relevance of the R nearest of each query that is not lone, and its R."""
    relevant, counts = relevant[counts > 0, : counts.max(initial=0)], counts[counts > 0]
    if not counts.size:
        raise ValueError("no query has an image of its class in the gallery")
    return relevant & (np.arange(relevant.shape[1]) < counts[:, None]), counts
