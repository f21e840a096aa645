"""The operations on vectors that k-means needs; a backend computes them by numpy or by torch."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
SquaredDistances = NDArray[np.float32]


class Points(Protocol):
    """N vectors and k centroids in D dimensions, with the arithmetic of k-means on them.

    `rows` are indices of vectors, `columns` are indices of centroids. "By difference" is |x - c|²,
    which is 0 for equal vectors; "by product" is |x|² - 2 x c + |c|², which is faster and rounds.
    """

    vectors: NDArray[np.float32]
    """(N, D)"""
    k: int
    rounding: float
    """The largest error of a squared distance that is computed by product."""

    def place(self, columns: Rows, rows: Rows) -> None:
        """Put centroids onto vectors."""

    def average(self, columns: Rows, rows: Rows, sizes: Rows) -> NDArray[np.float64]:
        """Put centroids onto the means of their vectors.

        The first column has the first sizes[0] rows, and so on. Returns the squared distance that
        each centroid has moved.
        """

    def distances(self, rows: Rows, columns: Rows) -> SquaredDistances:
        """Squared distance of each row to its own column, by difference."""

    def nearest(self, rows: Rows, columns: Rows) -> tuple[Rows, SquaredDistances, SquaredDistances]:
        """The nearest of `columns` to each row, and the squared distances to the nearest and to the
        second nearest, by product."""

    def pairwise_distances(self, rows: Rows) -> SquaredDistances:
        """Squared distances of all pairs of `rows`, by product."""


def rounding(lengths: NDArray[np.floating], dimensions: int) -> float:
    """The largest error of a squared distance by product, from the squared `lengths` (N,).

    It is a multiple of the last digit of the largest length. Errors of a quarter of it were seen.
    """
    return float(4 * np.finfo(lengths.dtype).eps * max(8, np.sqrt(dimensions) / 2) * lengths.max())
