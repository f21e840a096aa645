"""Retrieval metrics, computed from the ranks of each query's relevant images.

The recalls are fractions of queries. Every other metric is the mean over queries of a number that
depends on the query's R relevant images. It is undefined for a query with R = 0 (a lone query):
such queries are left out of it, as in pytorch-metric-learning. Recall@K counts a lone query as a
miss, as the code of the papers does, which divides by the number of all queries. So the
precision_at_1 of pytorch-metric-learning, which is not reported, is
recall@1 x queries / (queries - lone queries).

The examples use this ranking: the three relevant images of the first query have the ranks 1, 3 and
7, the only one of the second query has rank 2, and the third query is a lone one.

>>> ranking = Ranking(np.array([1, 3, 7, 2]), counts=np.array([3, 1, 0]))
>>> recall_at(1, ranking), recall_at(2, ranking)  # of three queries
(0.3333333333333333, 0.6666666666666666)
>>> r_precision(ranking)  # (2 / 3 + 0) / 2
0.3333333333333333
>>> average_precision_at_r(ranking).round(4).tolist()  # (1 / 1 + 2 / 3) / 3 and 0
[0.5556, 0.0]
>>> round(mean_average_precision(ranking), 4)  # ((1 / 1 + 2 / 3 + 3 / 7) / 3 + 1 / 2) / 2
0.5992
>>> mean_reciprocal_rank(ranking)  # (1 / 1 + 1 / 2) / 2
0.75
"""

import numpy as np
from numpy.typing import NDArray

from dmlbench.evaluation.ranking import Ranking


def recall_at(k: int, ranking: Ranking) -> float:
    """Recall@K: the fraction of all queries with a relevant image among the `k` nearest."""
    nearest = ranking.ranks[_starts(ranking)]
    return float(np.count_nonzero(nearest <= k) / len(ranking.counts))


def r_precision(ranking: Ranking) -> float:
    """R-precision: the mean fraction of the R nearest images that are relevant."""
    return _mean_over_queries(_within_r(ranking), ranking)


def average_precision_at_r(ranking: Ranking) -> NDArray[np.float64]:
    """The average precision over the R nearest images of each query that is not lone.

    MAP@R is their mean. The sum of the precisions at relevant images is divided by R, not by the
    number of relevant images among the R nearest (Musgrave et al., ECCV 2020, eq. 1-2).
    """
    return _of_queries(_precision(ranking) * _within_r(ranking), ranking)


def is_nearest_relevant(ranking: Ranking) -> NDArray[np.bool_]:
    """Whether the nearest image of each query is relevant. Recall@1 is the mean.

    >>> ranking = Ranking(np.array([1, 3, 7, 2]), counts=np.array([3, 1, 0]))
    >>> is_nearest_relevant(ranking).tolist()
    [True, False, False]
    """
    hits = np.zeros(len(ranking.counts), dtype=bool)
    hits[ranking.counts > 0] = ranking.ranks[_starts(ranking)] <= 1
    return hits


def mean_average_precision(ranking: Ranking) -> float:
    """MAP: mean average precision over the ranking of the whole gallery."""
    return _mean_over_queries(_precision(ranking), ranking)


def mean_reciprocal_rank(ranking: Ranking) -> float:
    """MRR: the mean of 1 / the rank of the nearest relevant image."""
    return float((1 / ranking.ranks[_starts(ranking)]).mean())


def _starts(ranking: Ranking) -> NDArray[np.int64]:
    """Where the ranks of each query that is not lone begin."""
    return (ranking.counts.cumsum() - ranking.counts)[ranking.counts > 0]


def _within_r(ranking: Ranking) -> NDArray[np.bool_]:
    """Whether each relevant image is among the R nearest of its query."""
    return ranking.ranks <= np.repeat(ranking.counts, ranking.counts)


def _precision(ranking: Ranking) -> NDArray[np.float64]:
    """The precision at the rank r of each relevant image: j / r for the j-th of a query."""
    before = np.repeat(ranking.counts.cumsum() - ranking.counts, ranking.counts)
    return (np.arange(1, len(before) + 1) - before) / ranking.ranks


def _mean_over_queries(values: NDArray, ranking: Ranking) -> float:
    """The mean, over queries that are not lone, of the mean value of their relevant images."""
    return float(_of_queries(values, ranking).mean())


def _of_queries(values: NDArray, ranking: Ranking) -> NDArray[np.float64]:
    """The mean value of the relevant images of each query that is not lone."""
    sums = np.add.reduceat(values, _starts(ranking), dtype=np.float64)
    means: NDArray[np.float64] = sums / ranking.counts[ranking.counts > 0]
    return means
