"""Hierarchical Proxy-based Loss for Deep Metric Learning - our reading.

Yang, Bastan, Zhu, Gray, Samaras; WACV 2022; arXiv 2103.13538. A proxy-based loss at two levels or
more: on one fine proxy per class, on coarse proxies of groups of classes, of groups of groups ...

Defaults: our choice: omega 0.1, C/10 groups, k-means over the normalised fine proxies before each
epoch but the first. The base losses have the defaults of their own files.

Family: tree.

Differs: HPL (our reading): there is no official code, and this was written without the paper's
method section. The abstract says that a hierarchical structure is put on the proxies, and that it
works with any proxy-based loss (here: Proxy Anchor, ProxyNCA++, normalised softmax, SoftTriple).
All else is our reading: how proxies are grouped and when, what coarse proxies are and what becomes
of them when classes are grouped again, the weights of levels, more than two levels, and one centre
per group in SoftTriple's coarse levels. The paper has given hierarchies and constructed ones, as
the authors' blog says; how it uses either was not seen.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dmlbench.losses import normalized_softmax, proxy_anchor, proxynca_pp, softtriple
from dmlbench.losses._grouping import match_centroids, spherical_kmeans
from dmlbench.losses.base import Embed, Loss, unit_length

LEAST = {
    "levels": 1,
    "coarse_proxies": 1,
    "centers_per_class": 1,
    "omega": 0,
    "omega_ratio": 0,
    "tau": 0,
    "warmup_epochs": 0,
    "recluster_every": 1,
    "proxies_lr_factor": 0,
    "temperature": 1e-6,
    "gamma": 1e-6,
}
ABOVE = {"alpha": 0, "la": 0}
MOST = {
    "levels": 20,
    "centers_per_class": 1000,
    "omega": 1000,
    "omega_ratio": 10,
    "alpha": 10000,
    "la": 10000,
    "tau": 1000,
    "margin": 1000,
}
ONLY_WITH = {
    "alpha": {"base": ("proxy_anchor",)},
    "delta": {"base": ("proxy_anchor",)},
    "temperature": {"base": ("normalized_softmax", "proxynca_pp")},
    "centers_per_class": {"base": ("softtriple",)},
    "la": {"base": ("softtriple",)},
    "gamma": {"base": ("softtriple",)},
    "tau": {"base": ("softtriple",)},
    "margin": {"base": ("softtriple",)},
    "coarse_proxies": {"hierarchy": ("kmeans",)},
    "recluster_every": {"hierarchy": ("kmeans",)},
}
SEARCH_SPACE = {
    "omega": {"low": 0.03, "high": 3.0, "log": True},
    "proxies_lr_factor": {"low": 1.0, "high": 1000.0, "log": True},
}


class HPL(Loss):
    """Base loss on the classes' proxies + omega x base loss on the coarse proxies of each level.

    Level 1 are the classes. Each coarser level, 2 to `levels`, puts each proxy of the level below
    into a group. Level 2 has the weight `omega`, each further level `omega_ratio` times that of the
    level below. An image has one positive proxy per level: that of its class, that of its class's
    group, and so on.

    `hierarchy` "kmeans" groups the proxies of the level below by spherical k-means: first after
    `warmup_epochs`, since new proxies are noise; then every `recluster_every` epochs. "given" takes
    the data set's super-classes, from `parents[0]` on. Before the first grouping, only level 1
    counts.

    `coarse` "centroid": coarse proxies are normalised means of the proxies below, which learn
    through them. "learned": they are parameters. These start at the centroids. A later grouping is
    matched to the present one by centroids, so a coarse proxy keeps what it and the optimiser's
    moments have learnt; only its members change.

    With k-means, level 2 has `coarse_proxies` groups; None means a tenth of the classes. Each
    further level has a tenth of the level below. A tenth is at least 2.

    `alpha` and `delta` belong to base "proxy_anchor". `temperature` belongs to
    "normalized_softmax" and "proxynca_pp"; None means their defaults, 0.05 and 1/9. `la`, `gamma`,
    `tau`, `margin` and `centers_per_class` belong to "softtriple", where a class is grouped by the
    normalised mean of its centres, and coarse levels have one centre per group.

    Raises:
        ValueError: `parents` has too few levels for a given hierarchy, or a coarser level divides
            its groups; or there are more groups than classes.
    """

    coarse: Any  # ModuleList of the _Coarse levels, the finest first
    grouped: Tensor  # whether the coarse levels count
    epoch: Tensor  # epochs begun

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        base: Literal[
            "proxy_anchor", "proxynca_pp", "normalized_softmax", "softtriple"
        ] = "proxy_anchor",
        alpha: float = 32.0,
        delta: float = 0.1,
        temperature: float | None = None,
        centers_per_class: int = 10,
        la: float = 20.0,
        gamma: float = 0.1,
        tau: float = 0.2,
        margin: float = 0.01,
        levels: int = 2,
        omega: float = 0.1,
        omega_ratio: float = 1.0,
        hierarchy: Literal["kmeans", "given"] = "kmeans",
        coarse_proxies: int | None = None,
        coarse: Literal["learned", "centroid"] = "learned",
        warmup_epochs: int = 1,
        recluster_every: int = 1,
        proxies_lr_factor: float = 100.0,
    ) -> None:
        super().__init__()
        self.omega = omega
        self.omega_ratio = omega_ratio
        self.hierarchy = hierarchy
        self.warmup_epochs = warmup_epochs
        self.recluster_every = recluster_every
        self.proxies_lr_factor = proxies_lr_factor

        shape = (num_classes, embedding_dim)
        if base == "proxy_anchor":
            proxies = proxy_anchor.initial_proxies(*shape)
            self.base = partial(proxy_anchor.proxy_anchor, alpha=alpha, delta=delta)
        elif base == "proxynca_pp":
            proxies = proxynca_pp.initial_proxies(*shape)
            self.base = partial(proxynca_pp.proxynca_pp, temperature=temperature or 1 / 9)
        elif base == "normalized_softmax":
            proxies = normalized_softmax.initial_proxies(*shape)
            self.base = partial(
                normalized_softmax.normalized_softmax, temperature=temperature or 0.05
            )
        else:
            proxies = softtriple.initial_centers(num_classes, centers_per_class, embedding_dim)
            self.base = partial(_softtriple, la=la, gamma=gamma, tau=tau, margin=margin)
        self.proxies = nn.Parameter(proxies)

        if hierarchy == "given":
            groupings = _given_groups(parents, levels)
        else:
            groupings = _empty_groups(num_classes, levels, coarse_proxies)
        dim = embedding_dim if coarse == "learned" else None
        self.coarse = nn.ModuleList(_Coarse(parent, groups, dim) for parent, groups in groupings)
        self.register_buffer("grouped", torch.tensor(False))
        self.register_buffer("epoch", torch.tensor(0))

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        value = self.base(embeddings, labels, self.proxies)
        proxies: Tensor = self.proxies
        weight = self.omega
        for level in self.coarse:
            labels, proxies = level.parent[labels], level(proxies)
            coarse_value = self.base(embeddings, labels, proxies)
            value = value + weight * torch.where(self.grouped, coarse_value, 0)
            weight *= self.omega_ratio
        return value

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters()), "lr": lr * self.proxies_lr_factor}]

    @torch.no_grad()
    def refresh(self, embed: Embed) -> tuple[nn.Parameter, ...]:
        """Group the proxies, level by level, if this epoch begins with a grouping.

        It looks at no image. It returns the coarse proxies at the first grouping, which sets them.
        """
        epochs_since_warmup = int(self.epoch) - self.warmup_epochs
        self.epoch += 1
        if epochs_since_warmup < 0 or epochs_since_warmup % self.recluster_every:
            return ()
        is_first = not self.grouped
        self.grouped.fill_(True)
        proxies: Tensor = self.proxies
        initialised = []
        for level in self.coarse:
            if self.hierarchy == "kmeans":
                level.regroup(proxies, keep_numbers=not is_first)
            if is_first and level.proxies is not None:
                level.proxies.copy_(level.centroids(proxies, level.parent))
                initialised.append(level.proxies)
            proxies = level(proxies)
        return tuple(initialised)

    def artefact(self) -> dict[str, Any]:
        """`parents`: the group of each class at each coarse level, the finest level first.

        It is empty before the first grouping.
        """
        parents = []
        group = torch.arange(len(self.proxies), device=self.epoch.device)
        for level in self.coarse:
            group = level.parent[group]
            parents.append(group.tolist())
        return {"parents": parents} if self.grouped else {}


class _Coarse(nn.Module):
    """A level of coarse proxies, one per group of the M proxies of the level below.

    They are parameters if `dim` is given, else the centroids of their groups.
    """

    parent: Tensor  # (M,): group of each proxy of the level below

    def __init__(self, parent: Tensor, groups: int, dim: int | None) -> None:
        super().__init__()
        self.groups = groups
        self.register_buffer("parent", parent)
        self.proxies = None if dim is None else nn.Parameter(torch.zeros(groups, dim))

    def forward(self, below: Tensor) -> Tensor:
        """Proxies (groups, D) of this level, from those `below` it."""
        return self.centroids(below, self.parent) if self.proxies is None else self.proxies

    def centroids(self, below: Tensor, parent: Tensor) -> Tensor:
        """Normalised mean (groups, D) of the normalised proxies of each group."""
        vectors = _unit_vectors(below)
        sums = vectors.new_zeros(self.groups, vectors.shape[1])
        return unit_length(sums.index_add(0, parent, vectors))

    def regroup(self, below: Tensor, keep_numbers: bool) -> None:
        """Group the proxies `below` by k-means.

        With `keep_numbers`, each new group takes the number, and so the coarse proxy, of a present
        group with a similar centroid.
        """
        points = _unit_vectors(below).float().cpu().numpy()
        parent = torch.from_numpy(spherical_kmeans(points, self.groups)).to(below.device)
        if keep_numbers:
            new, old = (self.centroids(below, p).cpu().numpy() for p in (parent, self.parent))
            parent = torch.from_numpy(match_centroids(new, old)).to(parent)[parent]
        self.parent.copy_(parent)


def _unit_vectors(proxies: Tensor) -> Tensor:
    """Proxies (M, D) at unit length; of centres (M, K, D), their unit vectors' normalised means."""
    unit = unit_length(proxies)
    return unit if unit.ndim == 2 else unit_length(unit.mean(dim=1))


def _softtriple(embeddings: Tensor, labels: Tensor, proxies: Tensor, **settings: float) -> Tensor:
    centers = proxies if proxies.ndim == 3 else proxies[:, None]
    return softtriple.softtriple(embeddings, labels, centers, **settings)


def _empty_groups(
    num_classes: int, levels: int, coarse_proxies: int | None
) -> list[tuple[Tensor, int]]:
    """The group of each of the M proxies below (M,), and the number of groups, per coarse level.

    The groups are all 0: they have no meaning before the first k-means.
    """
    if coarse_proxies is not None and coarse_proxies > num_classes:
        raise ValueError(f"coarse_proxies {coarse_proxies} is more than {num_classes} classes")
    groupings, below = [], num_classes
    for level in range(2, levels + 1):
        groups = min(below, max(2, round(below / 10)))
        if level == 2 and coarse_proxies is not None:
            groups = coarse_proxies
        groupings.append((torch.zeros(below, dtype=torch.int64), groups))
        below = groups
    return groupings


def _given_groups(parents: Tensor | None, levels: int) -> list[tuple[Tensor, int]]:
    """The group of each of the M proxies below (M,), and the number of groups, per coarse level.

    They come from the super-classes of each class, `parents` (at least levels - 1, C).
    """
    rows = [] if parents is None else list(parents[: levels - 1])
    if len(rows) < levels - 1:
        raise ValueError(
            f"hierarchy 'given' with levels {levels} needs a data set with {levels - 1} level(s) "
            f"of super-classes, and this has {len(rows)}"
        )
    groupings = []
    for number, row in enumerate(rows):
        names, group = row.unique(return_inverse=True)
        if number == 0:
            below, size = torch.arange(len(row)), len(row)
        parent = group.new_zeros(size).scatter(0, below, group)
        if not torch.equal(parent[below], group):
            raise ValueError(f"level_{number + 1} divides super-classes of level_{number}: no tree")
        groupings.append((parent, len(names)))
        below, size = group, len(names)
    return groupings
