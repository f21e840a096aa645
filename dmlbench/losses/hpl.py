"""Hierarchical Proxy-based Loss for Deep Metric Learning - our reading.

Yang, Bastan, Zhu, Gray, Samaras; WACV 2022; arXiv 2103.13538. A proxy-based loss at two levels:
on one fine proxy a class, and on coarse proxies of groups of classes.

There is no official code, and this was written without the paper's method section: beyond the
abstract (a hierarchical structure on the proxies, usable with any proxy-based loss) every detail
is our reading. So are the defaults: omega 0.1, C/10 groups, k-means over the normalised fine
proxies before each epoch but the first. The base losses and their defaults are those of their own
files; "given" hierarchies are our extension.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from dmlbench.losses import normalized_softmax, proxy_anchor
from dmlbench.losses.base import Embed, Loss, class_mask, unit_length

LEAST = {"omega": 0, "warmup_epochs": 0, "recluster_every": 1, "proxies_lr_factor": 0}
ABOVE = {"alpha": 0, "temperature": 0}
SEARCH_SPACE = {
    "omega": {"low": 0.03, "high": 3.0, "log": True},
    "proxies_lr_factor": {"low": 1.0, "high": 1000.0, "log": True},
}


class HPL(Loss):
    """Base loss on the classes' proxies + `omega` x base loss on their groups' coarse proxies.

    `hierarchy` "kmeans" groups the classes by spherical k-means of their proxies, first after
    `warmup_epochs` (new proxies are noise), then every `recluster_every`; "given" takes the data
    set's super-classes, `parents[0]`. Until then only the fine level counts.

    `coarse` "centroid" are normalised means of the fine proxies, which learn through them;
    "learned" are parameters. These start at the centroids, and later groups are matched to the
    present ones by their centroids: a coarse proxy goes on with what it and the optimiser's
    moments have learned, only its classes change.

    `coarse_proxies` None is a tenth of the classes, at least 2. `alpha` and `delta` are of base
    "proxy_anchor", `temperature` of "normalized_softmax".

    Raises:
        ValueError: a given hierarchy is asked for but `parents` is None, or more groups than
            classes.
    """

    parent: Tensor  # (C,): group of each class
    grouped: Tensor  # whether the coarse level counts
    epoch: Tensor  # epochs begun

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        base: Literal["proxy_anchor", "normalized_softmax"] = "proxy_anchor",
        alpha: float = 32.0,
        delta: float = 0.1,
        temperature: float = 0.05,
        omega: float = 0.1,
        hierarchy: Literal["kmeans", "given"] = "kmeans",
        coarse_proxies: int | None = None,
        coarse: Literal["learned", "centroid"] = "learned",
        warmup_epochs: int = 1,
        recluster_every: int = 1,
        proxies_lr_factor: float = 100.0,
    ) -> None:
        super().__init__()
        self.base = base
        self.alpha = alpha
        self.delta = delta
        self.temperature = temperature
        self.omega = omega
        self.hierarchy = hierarchy
        self.warmup_epochs = warmup_epochs
        self.recluster_every = recluster_every
        self.proxies_lr_factor = proxies_lr_factor

        parent = torch.zeros(num_classes, dtype=torch.int64)
        if hierarchy == "given":
            if parents is None:
                raise ValueError("hierarchy 'given' needs a data set with super-classes")
            names, parent = parents[0].unique(return_inverse=True)
            self.groups = len(names)
        else:
            tenth = min(num_classes, max(2, round(num_classes / 10)))
            self.groups = tenth if coarse_proxies is None else coarse_proxies
        if self.groups > num_classes:
            raise ValueError(f"coarse_proxies {self.groups} is more than {num_classes} classes")

        initial = {"proxy_anchor": proxy_anchor, "normalized_softmax": normalized_softmax}[base]
        self.proxies = nn.Parameter(initial.initial_proxies(num_classes, embedding_dim))
        self.coarse_proxies = (
            nn.Parameter(torch.zeros(self.groups, embedding_dim)) if coarse == "learned" else None
        )
        self.register_buffer("parent", parent)
        self.register_buffer("grouped", torch.tensor(False))
        self.register_buffer("epoch", torch.tensor(0))

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        fine = self._level(embeddings, labels, self.proxies)
        proxies = (
            self.centroids(self.parent) if self.coarse_proxies is None else self.coarse_proxies
        )
        coarse = self._level(embeddings, self.parent[labels], proxies)
        return fine + self.omega * torch.where(self.grouped, coarse, 0)

    def _level(self, embeddings: Tensor, labels: Tensor, proxies: Tensor) -> Tensor:
        if self.base == "proxy_anchor":
            return proxy_anchor.proxy_anchor(
                embeddings, labels, proxies, alpha=self.alpha, delta=self.delta
            )
        return normalized_softmax.normalized_softmax(
            embeddings, labels, proxies, temperature=self.temperature
        )

    def centroids(self, parent: Tensor) -> Tensor:
        """Normalised mean (groups, D) of the normalised fine proxies of each group."""
        members = class_mask(parent, self.groups).T.to(self.proxies.dtype)
        return unit_length(members @ unit_length(self.proxies))

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters()), "lr": lr * self.proxies_lr_factor}]

    @torch.no_grad()
    def refresh(self, embed: Embed) -> tuple[nn.Parameter, ...]:
        """Group the classes by their proxies, when it is due; no image is looked at."""
        groupings = int(self.epoch) - self.warmup_epochs
        self.epoch += 1
        if groupings < 0 or groupings % self.recluster_every:
            return ()
        if self.hierarchy == "kmeans":
            points = unit_length(self.proxies).float().cpu().numpy()
            parent = torch.from_numpy(spherical_kmeans(points, self.groups)).to(self.parent.device)
            if self.grouped:
                similarity = self.centroids(parent) @ self.centroids(self.parent).T
                _, match = linear_sum_assignment(similarity.cpu().numpy(), maximize=True)
                parent = torch.from_numpy(match).to(parent)[parent]
            self.parent.copy_(parent)
        first = not self.grouped
        self.grouped.fill_(True)
        if first and self.coarse_proxies is not None:
            self.coarse_proxies.copy_(self.centroids(self.parent))
            return (self.coarse_proxies,)
        return ()


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
