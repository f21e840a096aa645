"""Ranks over several data sets, and how probable it is that a loss is better than another.

Demsar: Statistical comparisons of classifiers over multiple data sets, Journal of Machine Learning
Research 2006. Agarwal et al.: Deep reinforcement learning at the edge of the statistical precipice,
NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from dmlbench.leaderboard.statistics.pairs import CONFIDENCE, LEVEL, Floats

RESAMPLES = 2000


@dataclass(frozen=True)
class MeanRanks:
    """The ranks of L losses on N data sets."""

    ranks: Floats
    """(N, L) from 1, the best; equal scores share the mean of their ranks."""

    @cached_property
    def means(self) -> Floats:
        """(L,) the mean over the data sets."""
        return np.asarray(self.ranks.mean(axis=0))

    @cached_property
    def friedman(self) -> tuple[float, float]:
        """The statistic of Friedman's test (1937), and its p-value.

        The hypothesis is that all losses have the same mean rank. The p-value is that of the
        chi-squared distribution, which is good from some ten data sets on.
        """
        if (self.ranks == self.ranks[:, :1]).all():
            return 0.0, 1.0
        result = friedmanchisquare(*self.ranks.T)
        return float(result.statistic), float(result.pvalue)

    @cached_property
    def critical_difference(self) -> float:
        """The difference of mean ranks from which on Nemenyi's test calls two losses different:
        q sqrt(L (L + 1) / (6 N)), q being the 95 % quantile of the studentized range over sqrt(2).
        """
        datasets, losses = self.ranks.shape
        quantile = studentized_range.ppf(1 - LEVEL, losses, np.inf) / np.sqrt(2)
        return float(quantile * np.sqrt(losses * (losses + 1) / (6 * datasets)))

    @cached_property
    def tie_groups(self) -> list[list[int]]:
        """The largest groups of losses that Nemenyi's test does not tell apart, the best first."""
        order = [int(loss) for loss in np.argsort(self.means, kind="stable")]
        groups: list[list[int]] = []
        for place, loss in enumerate(order):
            reach = self.means[loss] + self.critical_difference
            group = [other for other in order[place:] if self.means[other] <= reach]
            if not groups or groups[-1][-1] != group[-1]:
                groups.append(group)
        return groups


def rank_losses(scores: Floats) -> MeanRanks:
    """The ranks of losses on each data set.

    Args:
        scores: (L, N) the mean score of each loss on each data set, without holes.

    >>> rank_losses(np.array([[0.9, 0.8], [0.7, 0.8], [0.5, 0.4]])).means.tolist()
    [1.25, 1.75, 3.0]
    """
    return MeanRanks(rankdata(-scores, axis=0).T)


def probability_of_improvement(first: Sequence[Floats], second: Sequence[Floats]) -> float:
    """The probability that a run of the first loss has a higher score than one of the second.

    It is the mean over data sets of the part of all pairs of runs for which this is so; equal
    scores count one half (Agarwal et al. 2021, section 4.3). It does not say by how much.

    Args:
        first: the scores (S,) of the runs of the first loss on each data set.
        second: those of the second loss.

    >>> probability_of_improvement([np.array([0.6, 0.7])], [np.array([0.5, 0.65])])
    0.75
    """
    parts = [
        np.mean(np.sign(ours[:, None] - theirs) / 2 + 0.5)
        for ours, theirs in zip(first, second, strict=True)
    ]
    return float(np.mean(parts))


def improvement_interval(first: Sequence[Floats], second: Sequence[Floats]) -> tuple[float, float]:
    """The 95 % interval of `probability_of_improvement` over seeds, for these data sets.

    It is the percentile interval of a bootstrap that draws the runs of each data set and each loss
    anew, RESAMPLES times, with a fixed seed. With few seeds it is too narrow.
    """
    random = np.random.default_rng(0)
    parts = np.zeros(RESAMPLES)
    for ours, theirs in zip(first, second, strict=True):
        wins = np.sign(ours[:, None] - theirs) / 2 + 0.5
        of_ours, of_theirs = (
            random.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), size=RESAMPLES)
            for runs in (ours, theirs)
        )
        parts += np.einsum("rs,st,rt->r", of_ours, wins, of_theirs) / wins.size
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(parts / len(first), [tail, 1 - tail])
    return float(low), float(high)
