"""Groups of unit vectors: k-means without chance, and groups that keep their numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


def spherical_kmeans(points: NDArray[np.float32], groups: int) -> NDArray[np.int64]:
    """Group unit vectors by spherical k-means. No group is empty.

    Equal points give equal groups: the random generator of k-means has a fixed seed.

    Args:
        points: unit vectors (n, D).
        groups: number of groups, at most n.

    Returns:
        the group of each point (n,), from 0 to groups - 1.
    """
    import faiss  # only HPL with k-means needs it

    kmeans = faiss.Kmeans(
        points.shape[1],
        groups,
        niter=20,
        nredo=3,
        seed=0,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),
    )
    kmeans.train(points)
    similarity, nearest = kmeans.index.search(points, 1)
    group, similarity = nearest[:, 0], similarity[:, 0]
    for empty in np.setdiff1d(np.arange(groups), group):
        # Move the point that fits its group least, from a group that has others
        sizes = np.bincount(group, minlength=groups)
        outlier = np.where(sizes[group] > 1, similarity, np.inf).argmin()
        group[outlier], similarity[outlier] = empty, np.inf
    return group


def match_centroids(
    centroids: NDArray[np.floating], old: NDArray[np.floating]
) -> NDArray[np.int64]:
    """Match each new centroid to one old centroid, one to one.

    The sum of the cosines of the pairs is the largest possible.

    Args:
        centroids: unit vectors (n, D).
        old: unit vectors (n, D).

    Returns:
        the row of `old` for each row of `centroids` (n,).

    >>> match_centroids(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[0.8, 0.6], [-0.6, 0.8]]))
    array([1, 0])
    """
    return linear_sum_assignment(centroids @ old.T, maximize=True)[1]
