"""The arithmetic of k-means by torch on a GPU, in float64.

GPUs of data centres multiply float64 matrices as fast as float32 ones (an H200: 67 TFLOP/s). Others
are still fast enough for the distances that k-means computes (SOP: about 1.5 TFLOP per start). So
no distance loses digits, and no setting of the process (TF32) matters.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmlbench.evaluation.points import Rows, SquaredDistances, rounding

BLOCK, ROWS = 2**25, 2**15
"""Similarities (256 MB) and vectors (128 MB in 512 dimensions) at once."""


class TorchPoints:
    """See `points.Points`. A call waits for the device once, when its result is copied back."""

    def __init__(self, vectors: NDArray[np.float32], k: int, device: str) -> None:
        self.vectors, self.k, self.device = vectors, k, device
        self.points = torch.from_numpy(vectors).to(device).double()
        self.lengths = torch.linalg.vecdot(self.points, self.points)
        self.rounding = rounding(self.lengths.cpu().numpy(), vectors.shape[1])
        self.centroids = self.points.new_zeros(k, vectors.shape[1])

    def place(self, columns: Rows, rows: Rows) -> None:
        self.centroids[self._to_device(columns)] = self.points[self._to_device(rows)]

    def average(self, columns: Rows, rows: Rows, sizes: Rows) -> NDArray[np.float64]:
        column_index, row_index = self._to_device(columns), self._to_device(rows)
        sums = self.centroids.new_zeros(len(columns), self.centroids.shape[1])
        cluster = np.repeat(np.arange(len(columns)), sizes)
        for start in range(0, len(rows), ROWS):
            block = slice(start, start + ROWS)
            clusters, lengths = np.unique(cluster[block], return_counts=True)
            # It adds the rows of a cluster in order; index_add_ does not on a GPU. With a check of
            # the lengths it would wait for the device.
            sums[self._to_device(clusters)] += torch.segment_reduce(
                self.points[row_index[block]],
                "sum",
                lengths=self._to_device(lengths),
                unsafe=True,
            )
        means = sums / self._to_device(sizes)[:, None]
        moved = means - self.centroids[column_index]
        self.centroids[column_index] = means
        return torch.linalg.vecdot(moved, moved).cpu().numpy()

    def distances(self, rows: Rows, columns: Rows) -> SquaredDistances:
        row_index, column_index = self._to_device(rows), self._to_device(columns)
        distances = self.points.new_empty(len(rows), dtype=torch.float32)
        for start in range(0, len(rows), ROWS):
            block = slice(start, start + ROWS)
            difference = self.points[row_index[block]] - self.centroids[column_index[block]]
            distances[block] = torch.linalg.vecdot(difference, difference)
        return distances.cpu().numpy()

    def nearest(self, rows: Rows, columns: Rows) -> tuple[Rows, SquaredDistances, SquaredDistances]:
        row_index, column_index = self._to_device(rows), self._to_device(columns)
        centroids = self.centroids[column_index]
        halves = torch.linalg.vecdot(centroids, centroids) / -2
        nearest = torch.empty_like(row_index)
        highest = self.points.new_empty(2, len(rows))  # similarities: the first and the second
        size = min(ROWS, max(1, BLOCK // len(columns)))
        for start in range(0, len(rows), size):
            block = slice(start, start + size)
            similarity = torch.addmm(halves, self.points[row_index[block]], centroids.T)
            highest[0, block], nearest[block] = similarity.max(dim=1)
            similarity.scatter_(1, nearest[block, None], -torch.inf)
            highest[1, block] = similarity.amax(dim=1)
        squares = (self.lengths[row_index] - 2 * highest).clamp(min=0)
        first, second = squares.float().cpu().numpy()
        return column_index[nearest].cpu().numpy(), first, second

    def pairwise_distances(self, rows: Rows) -> SquaredDistances:
        row_index = self._to_device(rows)
        vectors, lengths = self.points[row_index], self.lengths[row_index]
        squares = torch.addmm(lengths + lengths[:, None], vectors, vectors.T, alpha=-2)
        return squares.clamp(min=0).float().cpu().numpy()

    def _to_device(self, indices: Rows) -> Tensor:
        return torch.from_numpy(indices).to(self.device)
