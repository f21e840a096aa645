"""k-means on a GPU where faiss searches for the nearest centroids, with the answers of torch.

faiss searches in float32 and keeps only the best distances, where torch computes all of them in
float64. That may pay on GPUs that are slow in float64. So faiss only proposes: the distances to its
candidates are computed again in float64, and torch searches for the vectors for which a centroid
that faiss left out could be as near.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmlbench.evaluation.points import Rows, SquaredDistances, rounding
from dmlbench.evaluation.torch_kmeans import ROWS, TorchPoints
from dmlbench.utils.errors import WrongEnvironment

SEARCH = "DMLBENCH_KMEANS"
"""The variable that chooses who searches on a GPU: torch or faiss."""
CANDIDATES = 8
"""Centroids that faiss proposes for each vector; the nearest two are wanted."""
SCRATCH = 2**28
"""Bytes of the GPU that faiss may use at once. By default it takes 1.5 GB."""


def gpu_points(
    vectors: NDArray[np.float32], k: int, device: str, environ: Mapping[str, str] = os.environ
) -> TorchPoints:
    """The points that k-means works on: those of torch, or of faiss if DMLBENCH_KMEANS says so.

    If this faiss can use no GPU, torch searches.

    Raises:
        WrongEnvironment: DMLBENCH_KMEANS has another value.
    """
    chosen = environ.get(SEARCH) or "torch"
    if chosen not in ("torch", "faiss"):
        fix = "it is torch, which is the default, or faiss for faiss on a GPU."
        raise WrongEnvironment(f"{SEARCH}={chosen}: {fix}")
    if chosen == "faiss" and not faiss_sees_gpu():
        print(f"{SEARCH}=faiss: faiss sees no GPU, so torch searches", flush=True)
        chosen = "torch"
    return (FaissPoints if chosen == "faiss" else TorchPoints)(vectors, k, device)


def faiss_sees_gpu() -> bool:
    """Whether faiss is there, is a build for CUDA, and sees a GPU."""
    try:
        import faiss
    except ImportError:
        return False
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


class FaissPoints(TorchPoints):
    """See `points.Points`. On a CPU, for tests, faiss searches there."""

    def __init__(self, vectors: NDArray[np.float32], k: int, device: str) -> None:
        super().__init__(vectors, k, device)
        lengths = self.lengths.float().cpu().numpy()
        self.search_error = rounding(lengths, vectors.shape[1])
        """The largest error of a squared distance that faiss computes."""
        self.resources: Any = None
        if self.points.is_cuda:
            import faiss
            import faiss.contrib.torch_utils  # so that faiss takes the tensors of torch

            self.resources = faiss.StandardGpuResources()
            self.resources.setTempMemory(SCRATCH)

    def nearest(self, rows: Rows, columns: Rows) -> tuple[Rows, SquaredDistances, SquaredDistances]:
        if len(columns) <= CANDIDATES:
            return super().nearest(rows, columns)
        row_index, column_index = self._to_device(rows), self._to_device(columns)
        centroids = self.centroids[column_index]
        lengths = torch.linalg.vecdot(centroids, centroids)
        centroids32 = centroids.float()
        nearest = torch.empty_like(row_index)
        squares = self.points.new_empty(2, len(rows))  # of the first and the second
        is_sure = torch.empty_like(row_index, dtype=torch.bool)
        size = max(1, ROWS // CANDIDATES)
        for start in range(0, len(rows), size):
            block = slice(start, start + size)
            vectors = self.points[row_index[block]]
            distances, candidates = self._search(vectors.float(), centroids32)
            candidates = candidates.sort(dim=1).values  # of equal ones, the first column wins
            products = torch.linalg.vecdot(vectors[:, None], centroids[candidates])
            exact = self.lengths[row_index[block], None] - 2 * products + lengths[candidates]
            exact, order = exact.clamp(min=0).sort(dim=1, stable=True)
            nearest[block] = candidates.gather(1, order[:, :1])[:, 0]
            squares[:, block] = exact[:, :2].T
            # A centroid that faiss left out is not nearer, by its distance, than its last candidate
            is_sure[block] = exact[:, 1] < distances[:, -1] - self.search_error
        first, second = squares.float().cpu().numpy()
        result = column_index[nearest].cpu().numpy(), first, second
        if len(unsure := np.flatnonzero(~is_sure.cpu().numpy())):
            for part, exact_part in zip(
                result, super().nearest(rows[unsure], columns), strict=True
            ):
                part[unsure] = exact_part
        return result

    def _search(self, vectors: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distances (Q, CANDIDATES), ascending, and rows of the nearest `centroids`."""
        import faiss

        if self.resources is not None:
            return faiss.knn_gpu(self.resources, vectors, centroids, CANDIDATES)
        distances, indices = faiss.knn(vectors.numpy(), centroids.numpy(), CANDIDATES)
        return torch.from_numpy(distances), torch.from_numpy(indices)
