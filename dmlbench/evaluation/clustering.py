"""Clustering metrics: how well the clusters of the embeddings agree with the classes."""

import numpy as np
from numpy.typing import ArrayLike


def nmi(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Normalised mutual information of two partitions (N,): I / mean of the two entropies.

    1 if both are a single block; scikit-learn's default (arithmetic) normalisation.
    """
    table = _Contingency(labels, clusters)
    entropy = table.mean_entropy()
    return min(max(table.information() / entropy, 0.0), 1.0) if entropy > 0 else 1.0  # rounding


def ami(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Adjusted mutual information of two partitions (N,): 0 is what chance gives, 1 the best.

    (I - E) / (mean of the two entropies - E), where E is the mean of I over all pairs of partitions
    into blocks of the same sizes (Vinh et al., JMLR 2010); scikit-learn's default normalisation.
    """
    table = _Contingency(labels, clusters)
    if len(table.joint) == len(table.labels) == len(table.clusters):
        return 1.0  # the same partition; all single blocks or all one block would be 0 / 0
    expected = table.expected_information()
    return float((table.information() - expected) / (table.mean_entropy() - expected))


class _Contingency:
    """How the blocks of two partitions overlap: sizes of both and of what they have in common."""

    def __init__(self, labels: ArrayLike, clusters: ArrayLike) -> None:
        _, label, self.labels = np.unique(labels, return_inverse=True, return_counts=True)
        _, cluster, self.clusters = np.unique(clusters, return_inverse=True, return_counts=True)
        cells, self.joint = np.unique(label * len(self.clusters) + cluster, return_counts=True)
        rows, columns = np.divmod(cells, len(self.clusters))
        self.outer = self.labels[rows] * self.clusters[columns]
        self.total = len(label)

    def information(self) -> float:
        return float((self.joint / self.total * np.log(self.total * self.joint / self.outer)).sum())

    def mean_entropy(self) -> float:
        shares = self.labels / self.total, self.clusters / self.total
        return float(-sum((share * np.log(share)).sum() for share in shares) / 2)

    def expected_information(self) -> float:
        """Mean information over all pairs of partitions with these sizes."""
        ones = np.unique(self.labels, return_counts=True)
        others = np.unique(self.clusters, return_counts=True)
        return sum(
            times * other_times * _expected_cell(int(size), int(other), self.total)
            for size, times in zip(*ones, strict=True)
            for other, other_times in zip(*others, strict=True)
        )


def _expected_cell(a: int, b: int, total: int) -> float:
    """What two blocks of `a` and `b` of `total` images add to the information on average.

    They have n images in common with the hypergeometric probability p(n), which is built up from
    p(n) / p(n - 1) and scaled to sum 1: logarithms of factorials would cancel, and lose digits.
    """
    n = np.arange(max(0, a + b - total), min(a, b) + 1)
    later = n[1:]
    ratios = (a - later + 1) * (b - later + 1) / (later * (total - a - b + later))
    logarithms = np.concatenate([[0.0], np.log(ratios).cumsum()])
    weights = np.exp(logarithms - logarithms.max())
    information = n / total * np.log(np.maximum(n, 1) * total / (a * b))
    return float((weights * information).sum() / weights.sum())
