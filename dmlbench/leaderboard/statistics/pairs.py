"""The tests of all pairs of losses, and what all of them together show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from dmlbench.utils.workers import SentWithoutCache

LEVEL = 0.05
"""The probability that any two equal losses of a table are called different."""
CONFIDENCE = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairTests(SentWithoutCache):
    """The tests of all P = L (L - 1) / 2 pairs of L losses, in the order of `all_pairs`.

    A pair that cannot be tested has NaN in place of its numbers.
    """

    losses: int
    """L."""
    seeds: NDArray[np.int64]
    """(P,) the number of seeds that both losses of a pair have."""
    difference: Floats
    """(P,) the mean over these seeds of the score of the first loss minus that of the second."""
    error: Floats
    """(P,) the standard error of the difference."""
    freedom: Floats
    """(P,) the degrees of freedom of the error."""
    p_values: Floats
    """(P,) of the hypothesis that the two losses are equal; of this pair alone."""

    @cached_property
    def adjusted(self) -> Floats:
        """(P,) the p-values after `adjust_p_values`; 1 for a pair that cannot be tested."""
        return adjust_p_values(self.p_values, self.losses)

    @property
    def is_separated(self) -> NDArray[np.bool_]:
        """(P,) whether the losses of a pair differ."""
        return self.adjusted <= LEVEL

    @property
    def next_level(self) -> float:
        """The p-value that the next pair must have to be separated too."""
        separated = int(np.count_nonzero(self.is_separated))
        counts = _possible_counts(self.losses)
        return LEVEL / counts[separated] if separated < len(counts) else LEVEL

    @property
    def half_width(self) -> Floats:
        """(P,) half the width of the 95 % interval of the difference, of this pair alone."""
        return np.asarray(stdtrit(self.freedom, (1 + CONFIDENCE) / 2) * self.error)

    @cached_property
    def is_better(self) -> NDArray[np.bool_]:
        """(L, L) whether the loss of a row is better than that of a column, and separated."""
        first, second = all_pairs(self.losses)
        better = np.zeros((self.losses, self.losses), dtype=bool)
        better[first, second] = self.is_separated & (self.difference > 0)
        better[second, first] = self.is_separated & (self.difference < 0)
        return better


def all_pairs(losses: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first and the second loss of each pair.

    >>> first, second = all_pairs(3)
    >>> first.tolist(), second.tolist()
    ([0, 0, 1], [1, 2, 2])
    """
    return np.triu_indices(losses, 1)


def adjust_p_values(p_values: Floats, losses: int) -> Floats:
    """Adjust the p-values of all pairs of losses for their number.

    If pairs with an adjusted p-value of at most 5 % are called different, then the probability that
    any equal pair is among them is at most 5 %, however many losses are equal.

    This is the procedure of Holm (Scandinavian Journal of Statistics 1979): from the smallest
    p-value on, each is multiplied by the number of hypotheses that may still be true. It counts
    them as Shaffer does (Journal of the American Statistical Association 1986, procedure S1). After
    the first separated pair of 8 losses, for example, at most 21 of the other 27 pairs can be
    equal: one loss differs from the seven others. So it separates every pair that Holm's own count
    separates, and sometimes more.

    Args:
        p_values: of all pairs, (P,) in the order of `all_pairs`. NaN counts as 1.

    >>> adjust_p_values(np.array([0.01, 0.04, 0.02]), losses=3).tolist()
    [0.03, 0.04, 0.03]
    """
    p_values = np.where(np.isnan(p_values), 1.0, p_values)
    order = np.argsort(p_values, kind="stable")
    raised = np.maximum.accumulate(p_values[order] * _possible_counts(losses))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(raised, 1)
    return adjusted


@cache
def _possible_counts(losses: int) -> NDArray[np.int64]:
    """The most pairs that can be equal after 0, 1, 2, ... pairs were found to differ."""
    pairs = losses * (losses - 1) // 2
    possible = np.array(sorted(_numbers_of_equal_pairs(losses)))
    return possible[np.searchsorted(possible, pairs - np.arange(pairs), side="right") - 1]


@cache
def _numbers_of_equal_pairs(losses: int) -> frozenset[int]:
    """How many pairs of `losses` losses can be equal: they fall into groups of equal ones."""
    if losses < 2:
        return frozenset([0])
    return frozenset(
        size * (size - 1) // 2 + others
        for size in range(1, losses + 1)
        for others in _numbers_of_equal_pairs(losses - size)
    )
