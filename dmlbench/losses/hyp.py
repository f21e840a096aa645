"""Hyperbolic Vision Transformers: Combining Improvements in Metric Learning.

Ermolov, Mirvakhabova, Khrulkov, Sebe, Oseledets; CVPR 2022; arXiv 2203.10833. Softmax cross-entropy
of each positive pair, on hyperbolic distances in a Poincaré ball.

Defaults: the authors' code (htdt/hyp_metric): temperature 0.2, curvature 0.1, clipping at length
2.3.

Family: pairs.

Differs: a mean over all positive pairs, where the authors' code adds the K (K - 1) pairs of views
of K images of a class; classes may have different numbers of images. Distances are computed on the
hyperboloid, without the small constants (1e-5) of the authors' code. As in that code, embeddings
are ranked by their hyperbolic distance. Written from the authors' code: of the paper, only the
abstract was read.
"""

from __future__ import annotations

from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor

from dmlbench.losses.base import Loss, pair_masks

LEAST = {"temperature": 0.02, "curvature": 0.01, "radius": 0.5}
MOST = {"curvature": 1, "radius": 2.5}
LEAST_IMAGES_PER_CLASS = 2
POINCARE_BALL = ("curvature", "radius")
SEARCH_SPACE = {
    "temperature": {"low": 0.05, "high": 1.0, "log": True},
    "curvature": {"low": 0.01, "high": 1.0, "log": True},
}


class Hyp(Loss):
    """Pairwise cross-entropy with the distance D of a Poincaré ball of curvature c.

    An embedding that is longer than `radius` is shortened to it: feature clipping. An embedding v
    is the point tanh(sqrt(c) |v|) v / (sqrt(c) |v|) of the ball: the exponential map at the origin.
    D(x, y) is 2 / sqrt(c) artanh(sqrt(c) |-x + y|), with the addition of Möbius.

    The first image of a class in the batch is its view 1, the second its view 2, and so on. The
    loss of a positive pair (a, p) is

        -log( exp(-D(a, p) / t) / (exp(-D(a, p) / t) + sum over n of exp(-D(a, n) / t)) )

    with the temperature t, where n are the images of other classes that are the same view of their
    class as a or p. With two images of each class, these are all images of other classes.
    """

    BY_DESIGN: ClassVar = {
        "order": "the order of the images of a class says which view is which, as in the authors' "
        "code"
    }

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        temperature: float = 0.2,
        curvature: float = 0.1,
        radius: float = 2.3,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.curvature = curvature
        self.radius = radius

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        positive, negative = pair_masks(labels)
        logits = -self._distances(embeddings) / self.temperature
        view = positive.tril().sum(dim=1)
        of_positive = logsumexp_by_view(logits, negative, view)
        of_anchor = of_positive.diagonal()[:, None]
        negatives = torch.logaddexp(of_anchor, of_positive)
        losses = torch.logaddexp(logits, negatives) - logits
        return (losses * positive).sum() / positive.sum().clamp(min=1)

    def _distances(self, embeddings: Tensor) -> Tensor:
        """Hyperbolic distances (N, N); equal points have distance 0, with gradient 0.

        A point at the distance r / sqrt(c) from the origin is (sinh(r) direction, cosh(r)) on the
        hyperboloid. There, cosh(sqrt(c) D) is the product of the last coordinates minus the inner
        product of the others.
        """
        length = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True).clamp(min=1e-6)
        r = 2 * sqrt(self.curvature) * length.clamp(max=self.radius)
        points = embeddings * (r.sinh() / length)
        last = (1 + points.square().sum(dim=1, keepdim=True)).sqrt()
        products = last * last.T
        cosh = products - points @ points.T
        # At equal points rounding leaves a little of cosh - 1, and the gradient 1/sqrt of that
        coincide = cosh - 1 <= 16 * torch.finfo(cosh.dtype).eps * products
        distance = torch.where(coincide, 2, cosh).acosh() / sqrt(self.curvature)
        return torch.where(coincide, 0, distance)


def logsumexp_by_view(logits: Tensor, negative: Tensor, view: Tensor) -> Tensor:
    """For row a and column p, the log-sum-exp of the logits (a, n) of all negatives n of a that
    have the view of p: (N, N). Without any, it is below -700.

    Args:
        logits: (N, N), between -500 and 0.
        negative: (N, N), whether the column is a negative of the row.
        view: (N,) of each image.
    """
    # In float64, exp(-500) is a number
    terms = logits.double().masked_fill(~negative, -torch.inf).exp()
    sums = terms @ (view[:, None] == view).to(terms.dtype)
    return sums.clamp(min=torch.finfo(sums.dtype).tiny).log().to(logits.dtype)
