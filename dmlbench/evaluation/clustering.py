"""Clustering metrics: how well the clusters of the embeddings agree with the classes."""

import numpy as np
from numpy.typing import ArrayLike


def nmi(labels: ArrayLike, clusters: ArrayLike) -> float:
    """The normalised mutual information of two partitions, in [0, 1].

    It is the mutual information divided by the arithmetic mean of the two entropies. Libraries
    differ in that mean: this one is scikit-learn's default since its version 0.22. Two partitions
    that are both a single block have NMI 1.

    Args:
        labels: (N,) class of each image; any values.
        clusters: (N,) cluster of each image; any values.

    >>> nmi(["cat", "cat", "dog", "dog"], [1, 1, 0, 0])
    1.0
    >>> nmi(["cat", "cat", "dog", "dog"], [0, 1, 0, 1])
    0.0
    """
    table = _Contingency(labels, clusters)
    entropy = table.mean_entropy()
    return min(max(table.information() / entropy, 0.0), 1.0) if entropy > 0 else 1.0  # rounding


def ami(labels: ArrayLike, clusters: ArrayLike) -> float:
    """The adjusted mutual information of two partitions: chance scores 0, equal partitions 1.

    (I - E) / (mean of the two entropies - E), where I is the mutual information and E its mean
    over all pairs of partitions into blocks of the same sizes (Vinh et al., JMLR 2010: AMI_sum).
    The arithmetic mean is scikit-learn's default since its version 0.22.

    Args:
        labels: (N,) class of each image; any values.
        clusters: (N,) cluster of each image; any values.

    >>> ami(["cat", "cat", "dog", "dog"], [1, 1, 0, 0])
    1.0
    >>> round(ami(["cat", "cat", "dog", "dog"], [0, 1, 0, 1]), 3)  # worse than chance
    -0.5
    """
    table = _Contingency(labels, clusters)
    if len(table.joint_sizes) == len(table.label_sizes) == len(table.cluster_sizes):
        return 1.0  # equal partitions; if all blocks are single, or there is one block: 0 / 0
    expected = table.expected_information()
    return float((table.information() - expected) / (table.mean_entropy() - expected))


class _Contingency:
    """The sizes of the blocks of two partitions, and of the overlaps that are not empty."""

    def __init__(self, labels: ArrayLike, clusters: ArrayLike) -> None:
        _, label, self.label_sizes = np.unique(labels, return_inverse=True, return_counts=True)
        _, cluster, self.cluster_sizes = np.unique(
            clusters, return_inverse=True, return_counts=True
        )
        cells, self.joint_sizes = np.unique(
            label * len(self.cluster_sizes) + cluster, return_counts=True
        )
        rows, columns = np.divmod(cells, len(self.cluster_sizes))
        self.products = self.label_sizes[rows] * self.cluster_sizes[columns]
        self.total = len(label)

    def information(self) -> float:
        """The mutual information, in nats."""
        joint = self.joint_sizes
        return float((joint / self.total * np.log(self.total * joint / self.products)).sum())

    def mean_entropy(self) -> float:
        """The mean of the two entropies, in nats."""
        shares = self.label_sizes / self.total, self.cluster_sizes / self.total
        return float(-sum((share * np.log(share)).sum() for share in shares) / 2)

    def expected_information(self) -> float:
        """The mean information over all pairs of partitions with these sizes."""
        label_sizes = np.unique(self.label_sizes, return_counts=True)
        cluster_sizes = np.unique(self.cluster_sizes, return_counts=True)
        return sum(
            label_count * cluster_count * _expected_cell(int(a), int(b), self.total)
            for a, label_count in zip(*label_sizes, strict=True)
            for b, cluster_count in zip(*cluster_sizes, strict=True)
        )


def _expected_cell(a: int, b: int, total: int) -> float:
    """What two blocks of `a` and `b` of `total` images add to the information on average.

    They have n images in common with the hypergeometric probability p(n). It is computed from
    p(n) / p(n - 1) and scaled to sum 1: logarithms of factorials would cancel and lose digits.
    """
    n = np.arange(max(0, a + b - total), min(a, b) + 1)
    later = n[1:]
    ratios = (a - later + 1) * (b - later + 1) / (later * (total - a - b + later))
    logarithms = np.concatenate([[0.0], np.log(ratios).cumsum()])
    weights = np.exp(logarithms - logarithms.max())
    information = n / total * np.log(np.maximum(n, 1) * total / (a * b))
    return float((weights * information).sum() / weights.sum())
