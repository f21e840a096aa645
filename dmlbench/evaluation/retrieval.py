"""Retrieval metrics: functions of the ranks of each query's relevant images.

Beside the recalls, all are means over queries of a number that the query's R relevant images give.
A query with R = 0 has no right answer ("lone"): those are undefined there and leave it out, as
pytorch-metric-learning does; Recall@K counts it as a miss, as the papers' codes do (they divide by
the number of all queries). That library's precision_at_1 is therefore recall@1 x queries / (queries
- lone queries), and has no row of its own.
"""

import numpy as np
from numpy.typing import NDArray

from dmlbench.evaluation.ranking import Ranking


def recall_at(k: int, ranking: Ranking) -> float:
    """Fraction of all queries with a relevant image among the `k` nearest."""
    nearest = ranking.ranks[_starts(ranking)]
    return float(np.count_nonzero(nearest <= k) / len(ranking.counts))


def recall_at_1_of(
    groups: NDArray[np.integer],
    queries: NDArray[np.integer],
    gallery: NDArray[np.integer],
    ranking: Ranking,
) -> float:
    """Fraction of queries whose nearest image is of their super-class.

    `groups` (N,) is the super-class of each image; `queries` and `gallery` are rows of it, as the
    `ranking` has its nearest images. Queries that have no other image of theirs in the gallery are
    left out.
    """
    own, sizes = groups[queries], np.bincount(groups[gallery], minlength=groups.max() + 1)
    others = sizes[own] - np.isin(queries, gallery)
    return float((groups[ranking.nearest] == own)[others > 0].mean())


def r_precision(ranking: Ranking) -> float:
    """Mean fraction of the R nearest images that are relevant."""
    return _mean_over_queries(_within_r(ranking), ranking)


def map_at_r(ranking: Ranking) -> float:
    """Mean average precision over the R nearest images (Musgrave et al., ECCV 2020, eq. 1-2)."""
    return _mean_over_queries(_precision(ranking) * _within_r(ranking), ranking)


def mean_average_precision(ranking: Ranking) -> float:
    """MAP: mean average precision over the ranking of the whole gallery."""
    return _mean_over_queries(_precision(ranking), ranking)


def mean_reciprocal_rank(ranking: Ranking) -> float:
    """MRR: mean of 1 / the rank of the nearest relevant image."""
    return float((1 / ranking.ranks[_starts(ranking)]).mean())


def _starts(ranking: Ranking) -> NDArray[np.int64]:
    """Where the ranks of each query that is not lone begin."""
    return (ranking.counts.cumsum() - ranking.counts)[ranking.counts > 0]


def _within_r(ranking: Ranking) -> NDArray[np.bool_]:
    """Whether each relevant image is among its query's R nearest."""
    return ranking.ranks <= np.repeat(ranking.counts, ranking.counts)


def _precision(ranking: Ranking) -> NDArray[np.float64]:
    """The precision at each relevant image's rank: j / r for a query's j-th, at rank r."""
    before = np.repeat(ranking.counts.cumsum() - ranking.counts, ranking.counts)
    return (np.arange(1, len(before) + 1) - before) / ranking.ranks


def _mean_over_queries(values: NDArray, ranking: Ranking) -> float:
    """The mean over queries that are not lone of their relevant images' mean value."""
    sums = np.add.reduceat(values, _starts(ranking), dtype=np.float64)
    return float((sums / ranking.counts[ranking.counts > 0]).mean())
