"""Groups of unit vectors: k-means that is always the same, and groups that keep their numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


def spherical_kmeans(points: NDArray[np.float32], groups: int) -> NDArray[np.int64]:
    """Group (n,) of each of the unit `points` (n, D), none empty; always the same for the same
    points."""
    import faiss  # only this variant needs it

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
        # the point that fits its group least, of those that do not leave another group empty
        sizes = np.bincount(group, minlength=groups)
        stray = np.where(sizes[group] > 1, similarity, np.inf).argmin()
        group[stray], similarity[stray] = empty, np.inf
    return group


def matched(centroids: NDArray[np.floating], old: NDArray[np.floating]) -> NDArray[np.int64]:
    """For each of the unit `centroids` (n, D) one of the `old` (n, D), each once, so that the
    sum of their cosines is the largest."""
    return linear_sum_assignment(centroids @ old.T, maximize=True)[1]
