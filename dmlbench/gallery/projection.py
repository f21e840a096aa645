"""Maps of embeddings: two coordinates for each image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dmlbench.evaluation.placing import Placed
from dmlbench.gallery.neighbours import find_neighbours

PERPLEXITY = 30
EARLY_STEPS, STEPS = 250, 250
EXAGGERATION = 12.0
THETA = 0.8
"""How coarsely Barnes-Hut sums up far images. At 13,000 images it takes 32 s of one core, and the
grid of FFTs takes 37 s for a worse map; at 1,500 images 3 s and 10 s."""
GRID = 2**16 - 1
"""The largest coordinate of `on_grid`."""


def pca(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """The two directions of the largest variance: (N, 2) for `vectors` (N, D).

    The sign of each is such that its entry of the largest absolute value is positive.

    >>> pca(np.array([[3.0, 0.0, 1.0], [0.0, 0.0, 1.0], [-3.0, 0.0, 1.0]])).round(6).tolist()
    [[3.0, 0.0], [0.0, 0.0], [-3.0, 0.0]]
    """
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    _, directions = np.linalg.eigh(centred.T @ centred)
    directions = directions[:, : -3 if directions.shape[1] > 2 else None : -1]
    largest = np.abs(directions).argmax(axis=0)
    signs = np.sign(directions[largest, np.arange(directions.shape[1])])
    projected = centred @ (directions * signs)
    return np.pad(projected, ((0, 0), (0, 2 - projected.shape[1]))) + 0.0


def tsne(placed: Placed, threads: int = 1) -> NDArray[np.float64]:
    """t-SNE (N, 2) of embeddings, from exact neighbours and the start of `pca`.

    Source: van der Maaten, Hinton, JMLR 2008; by openTSNE. The perplexity is 30, the largest that
    few images allow if there are few. Equal embeddings give equal maps, whatever `threads` is.
    """
    from openTSNE import TSNEEmbedding, initialization
    from openTSNE.affinity import PerplexityBasedNN
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    count = len(placed.vectors)
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    if perplexity < 2:
        return pca(placed.vectors)
    rows, k = np.arange(count), int(3 * perplexity)
    one_class = np.zeros(count, np.int64)
    found = find_neighbours(placed.gallery, one_class, rows, rows, k, placed.queries)
    distances = placed.distances(found.similarities)
    affinities = PerplexityBasedNN(
        perplexity=perplexity,
        knn_index=PrecomputedNeighbors(found.nearest, distances),
        n_jobs=threads,
    )
    start = initialization.rescale(pca(placed.vectors))
    embedding = TSNEEmbedding(
        start,
        affinities,
        negative_gradient_method="bh",
        theta=THETA,
        n_jobs=threads,
        random_state=0,
    )
    embedding = embedding.optimize(EARLY_STEPS, exaggeration=EXAGGERATION, momentum=0.5)
    return np.asarray(embedding.optimize(STEPS, momentum=0.8), dtype=np.float64)


def on_grid(points: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Points (N, 2) as whole numbers from 0 to `GRID`, at one scale in both directions.

    >>> on_grid(np.array([[0.0, 0.0], [2.0, 1.0]])).tolist()
    [[0, 16384], [65535, 49151]]
    """
    low, high = points.min(axis=0), points.max(axis=0)
    span = (high - low).max() or 1.0
    scaled = 0.5 + (points - (low + high) / 2) / span
    return np.asarray((GRID * scaled).round(), dtype=np.uint16)
