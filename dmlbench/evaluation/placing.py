"""Embeddings as they are compared: by their cosines, or by distances in a Poincaré ball."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmlbench.evaluation.ranking import finite_lengths, refuse_collapsed, unit

if TYPE_CHECKING:
    from dmlbench.study.poincare_ball import PoincareBall

    Vectors = NDArray[np.float32]


class Placed(NamedTuple):
    """N embeddings as they are compared.

    The similarity of a query and an image of the gallery is the inner product of their vectors. It
    is in [-1, 1].
    """

    vectors: Vectors
    """(N, D), of length 1 at most: for k-means, maps, and the shape of the embeddings."""
    queries: Vectors
    """(N, E) the images as queries."""
    gallery: Vectors
    """(N, E) the images in a gallery."""
    ball: PoincareBall | None = None

    def part(self, rows: NDArray[np.integer]) -> Placed:
        """Those of some rows."""
        return Placed(self.vectors[rows], self.queries[rows], self.gallery[rows], self.ball)

    def distances(self, similarities: NDArray[np.floating]) -> NDArray[np.float64]:
        """The distances that belong to similarities: Euclidean ones of unit vectors, or hyperbolic
        ones.

        >>> place([[3, 4], [0, 2]]).distances(np.array([1.0, 0.0])).round(4).tolist()
        [0.0, 1.4142]
        """
        similarities = similarities.astype(np.float64)
        if self.ball is None:
            return np.sqrt(np.maximum(2 - 2 * similarities, 0))
        cosh = np.maximum(-similarities / _scale(self.ball) ** 2, 1)
        return np.asarray(np.arccosh(cosh) / np.sqrt(self.ball.curvature))


def place(embeddings: ArrayLike, ball: PoincareBall | None = None) -> Placed:
    """The embeddings (N, D) as they are compared: by cosine; or, in a `ball`, by distance.

    A point at the distance r / sqrt(c) from the origin of a ball of curvature c is (sinh(r)
    direction, cosh(r)) on the hyperboloid. The Minkowski product of two such points, that of the
    first D coordinates minus that of the last ones, is -cosh(sqrt(c) distance): the larger, the
    nearer. As vectors of queries have the sign of the last coordinate changed, it is an inner
    product. All vectors are scaled by one number, so that none is longer than 1.

    Raises:
        UnusableEmbeddings: as `unit`. In a ball, a zero vector is the origin, and allowed.

    >>> from dmlbench.study.poincare_ball import PoincareBall
    >>> placed = place([[0.3, 0], [1, 0], [-9, 0]], PoincareBall(curvature=0.1, radius=2.3))
    >>> placed.distances(placed.queries @ placed.gallery.T).round(2).tolist()
    [[0.0, 1.4, 5.2], [1.4, 0.0, 6.6], [5.2, 6.6, 0.0]]
    """
    if ball is None:
        vectors = unit(embeddings)
        return Placed(vectors, vectors, vectors)
    points = np.asarray(embeddings)
    lengths, scale = finite_lengths(points), _scale(ball)
    vectors = _scaled(points, 1 / np.maximum(lengths, ball.radius))
    # cosh(x) is near 1 + x² / 2, and x at least |difference of vectors| · largest r
    refuse_collapsed(vectors * np.float32(_largest_r(ball)))
    r = 2 * np.sqrt(ball.curvature) * np.minimum(lengths, ball.radius)
    inner = _scaled(points, scale * np.sinh(r) / np.maximum(lengths, np.finfo(np.float64).tiny))
    last = (scale * np.cosh(r)).astype(np.float32)[:, None]
    return Placed(vectors, np.hstack([inner, -last]), np.hstack([inner, last]), ball)


def _scaled(points: NDArray[Any], factors: NDArray[np.float64]) -> Vectors:
    scaled = np.empty(points.shape, dtype=np.float32)
    np.multiply(points, factors[:, None], out=scaled, casting="same_kind")
    return scaled


def _largest_r(ball: PoincareBall) -> float:
    return float(2 * np.sqrt(ball.curvature) * ball.radius)


def _scale(ball: PoincareBall) -> float:
    """The factor that makes the longest vector 1 long: sinh² + cosh² of r is cosh(2 r)."""
    return float(1 / np.sqrt(np.cosh(2 * _largest_r(ball))))
