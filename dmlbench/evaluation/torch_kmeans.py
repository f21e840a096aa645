"""What k-means computes of its vectors, by torch on a GPU, in float64.

GPUs of data centres multiply float64 matrices as fast as float32 ones (an H200: 67 TFLOP/s), and
others still fast enough for what k-means leaves to compute (SOP: some 1.5 TFLOP a start). So no
distance loses digits, and no setting of the process (TF32) has a say.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmlbench.evaluation.kmeans import Rows, Squares, rounding

BLOCK, ROWS = 2**25, 2**15  # similarities (256 MB) and vectors (128 MB in 512 dimensions) at once


class TorchPoints:
    """See `kmeans.Points`. A call waits for the device once, when its answer is copied back."""

    def __init__(self, vectors: NDArray[np.float32], k: int, device: str) -> None:
        self.vectors, self.k, self.device = vectors, k, device
        self.points = torch.from_numpy(vectors).to(device).double()
        self.lengths = torch.linalg.vecdot(self.points, self.points)
        self.rounding = rounding(self.lengths.cpu().numpy(), vectors.shape[1])
        self.centroids = self.points.new_zeros(k, vectors.shape[1])

    def place(self, columns: Rows, rows: Rows) -> None:
        self.centroids[self._there(columns)] = self.points[self._there(rows)]

    def average(self, columns: Rows, rows: Rows, sizes: Rows) -> NDArray[np.float64]:
        where, each = self._there(columns), self._there(rows)
        sums = self.centroids.new_zeros(len(columns), self.centroids.shape[1])
        cluster = np.repeat(np.arange(len(columns)), sizes)
        for start in range(0, len(rows), ROWS):
            part = slice(start, start + ROWS)
            here, lengths = np.unique(cluster[part], return_counts=True)
            # It adds the rows of a cluster in order; index_add_ does not on a GPU. To check the
            # lengths, it would wait for the device.
            sums[self._there(here)] += torch.segment_reduce(
                self.points[each[part]], "sum", lengths=self._there(lengths), unsafe=True
            )
        means = sums / self._there(sizes)[:, None]
        moved = means - self.centroids[where]
        self.centroids[where] = means
        return torch.linalg.vecdot(moved, moved).cpu().numpy()

    def apart(self, rows: Rows, columns: Rows) -> Squares:
        each, where = self._there(rows), self._there(columns)
        found = self.points.new_empty(len(rows), dtype=torch.float32)
        for start in range(0, len(rows), ROWS):
            part = slice(start, start + ROWS)
            apart = self.points[each[part]] - self.centroids[where[part]]
            found[part] = torch.linalg.vecdot(apart, apart)
        return found.cpu().numpy()

    def nearest(self, rows: Rows, columns: Rows) -> tuple[Rows, Squares, Squares]:
        each, where = self._there(rows), self._there(columns)
        centroids = self.centroids[where]
        halves = torch.linalg.vecdot(centroids, centroids) / -2
        nearest = torch.empty_like(each)
        similar = self.points.new_empty(2, len(rows))
        size = min(ROWS, max(1, BLOCK // len(columns)))
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            found = torch.addmm(halves, self.points[each[part]], centroids.T)
            similar[0, part], nearest[part] = found.max(dim=1)
            found.scatter_(1, nearest[part, None], -torch.inf)
            similar[1, part] = found.amax(dim=1)
        first, second = (self.lengths[each] - 2 * similar).clamp(min=0).float().cpu().numpy()
        return where[nearest].cpu().numpy(), first, second

    def between(self, rows: Rows) -> Squares:
        vectors, lengths = self.points[self._there(rows)], self.lengths[self._there(rows)]
        found = torch.addmm(lengths + lengths[:, None], vectors, vectors.T, alpha=-2)
        return found.clamp(min=0).float().cpu().numpy()

    def _there(self, numbers: Rows) -> Tensor:
        return torch.from_numpy(numbers).to(self.device)
