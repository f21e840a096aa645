"""Hierarchical Proxy-based Loss for Deep Metric Learning - our reading.

Yang, Bastan, Zhu, Gray, Samaras; WACV 2022; arXiv 2103.13538. A proxy-based loss at two levels or
more: on one fine proxy a class, and on coarse proxies of groups of classes, of groups of groups ...

Defaults: our choice: omega 0.1, C/10 groups, k-means over the normalised fine proxies before each
epoch but the first. The base losses and their defaults are those of their own files.

Differs: HPL (our reading): there is no official code, and this was written without the paper's
method section. Beyond the abstract (a hierarchical structure on the proxies, usable with any
proxy-based loss; here on Proxy Anchor, ProxyNCA++, normalised softmax or SoftTriple) every detail
is our reading: how proxies are grouped and when, what coarse proxies are and how they go on after
classes are grouped anew, the weights of levels, more than two levels, SoftTriple's coarse levels
with one centre a group. "Given" hierarchies are our extension.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dmlbench.losses import normalized_softmax, proxy_anchor, proxynca_pp, softtriple
from dmlbench.losses._grouping import matched, spherical_kmeans
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
}
ABOVE = {"alpha": 0, "temperature": 0, "la": 0, "gamma": 0}
SEARCH_SPACE = {
    "omega": {"low": 0.03, "high": 3.0, "log": True},
    "proxies_lr_factor": {"low": 1.0, "high": 1000.0, "log": True},
}


class HPL(Loss):
    """Base loss on the classes' proxies + omega x base loss on the coarse proxies of each level.

    Level 1 is the classes; each of the coarser ones, 2 to `levels`, puts each proxy of the level
    below into a group. The first of them weighs `omega`, each further one `omega_ratio` times the
    one below. An image has one positive proxy a level: that of its class, of its class's group ...

    `hierarchy` "kmeans" groups by spherical k-means of the proxies of the level below, first after
    `warmup_epochs` (new proxies are noise), then every `recluster_every`; "given" takes the data
    set's super-classes, `parents[0]` and on. Until then only the fine level counts.

    `coarse` "centroid" are normalised means of the proxies below, which learn through them;
    "learned" are parameters. These start at the centroids, and later groups are matched to the
    present ones by their centroids: a coarse proxy goes on with what it and the optimiser's
    moments have learned, only its members change.

    With k-means, `coarse_proxies` is the size of the first coarse level, None a tenth of the
    classes; each further level has a tenth of the one below; none of these tenths is below 2.

    `alpha` and `delta` are of base "proxy_anchor"; `temperature` of "normalized_softmax" and
    "proxynca_pp", None being their own 0.05 and 1/9; `la`, `gamma`, `tau`, `margin` and
    `centers_per_class` of "softtriple", where a class is grouped by the normalised mean of its
    centres, and coarse levels have one centre a group.

    Raises:
        ValueError: a given hierarchy is asked for, and `parents` has not so many levels, or groups
            that a coarser level divides; or more groups than classes.
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
            maps = _nested(parents, levels)
        else:
            maps = _ungrouped(num_classes, levels, coarse_proxies)
        dim = embedding_dim if coarse == "learned" else None
        self.coarse = nn.ModuleList(_Coarse(parent, groups, dim) for parent, groups in maps)
        self.register_buffer("grouped", torch.tensor(False))
        self.register_buffer("epoch", torch.tensor(0))

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        value = self.base(embeddings, labels, self.proxies)
        proxies: Tensor = self.proxies
        weight = self.omega
        for level in self.coarse:
            labels, proxies = level.parent[labels], level(proxies)
            coarse = self.base(embeddings, labels, proxies)
            value = value + weight * torch.where(self.grouped, coarse, 0)
            weight *= self.omega_ratio
        return value

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters()), "lr": lr * self.proxies_lr_factor}]

    @torch.no_grad()
    def refresh(self, embed: Embed) -> tuple[nn.Parameter, ...]:
        """Group proxies, level by level, when it is due; no image is looked at."""
        groupings = int(self.epoch) - self.warmup_epochs
        self.epoch += 1
        if groupings < 0 or groupings % self.recluster_every:
            return ()
        first = not self.grouped
        self.grouped.fill_(True)
        proxies: Tensor = self.proxies
        begun = []
        for level in self.coarse:
            if self.hierarchy == "kmeans":
                level.regroup(proxies, keep_numbers=not first)
            if first and level.proxies is not None:
                level.proxies.copy_(level.centroids(proxies, level.parent))
                begun.append(level.proxies)
            proxies = level(proxies)
        return tuple(begun)

    def artefact(self) -> dict[str, Any]:
        """`parents`: the group of each class at each coarse level, from the finest on; once it
        has grouped."""
        parents = []
        group = torch.arange(len(self.proxies), device=self.epoch.device)
        for level in self.coarse:
            group = level.parent[group]
            parents.append(group.tolist())
        return {"parents": parents} if self.grouped else {}


class _Coarse(nn.Module):
    """A level of `groups` coarse proxies above M proxies; theirs are learned where `dim` is given,
    else centroids."""

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
        one_each = _one_each(below)
        sums = one_each.new_zeros(self.groups, one_each.shape[1])
        return unit_length(sums.index_add(0, parent, one_each))

    def regroup(self, below: Tensor, keep_numbers: bool) -> None:
        """Group the proxies `below` by k-means; `keep_numbers`: each new group takes the number,
        and so the coarse proxy, of the present group that it is most like."""
        points = _one_each(below).float().cpu().numpy()
        parent = torch.from_numpy(spherical_kmeans(points, self.groups)).to(below.device)
        if keep_numbers:
            new, old = (self.centroids(below, p).cpu().numpy() for p in (parent, self.parent))
            parent = torch.from_numpy(matched(new, old)).to(parent)[parent]
        self.parent.copy_(parent)


def _one_each(proxies: Tensor) -> Tensor:
    """Unit vectors (M, D) of proxies (M, D), or of centres (M, K, D) the mean."""
    unit = unit_length(proxies)
    return unit if unit.ndim == 2 else unit_length(unit.mean(dim=1))


def _softtriple(embeddings: Tensor, labels: Tensor, proxies: Tensor, **settings: float) -> Tensor:
    centers = proxies if proxies.ndim == 3 else proxies[:, None]
    return softtriple.softtriple(embeddings, labels, centers, **settings)


def _ungrouped(num_classes: int, levels: int, first: int | None) -> list[tuple[Tensor, int]]:
    """Of each coarse level, a parent (M,) of all M below, still without meaning; and its size."""
    if first is not None and first > num_classes:
        raise ValueError(f"coarse_proxies {first} is more than {num_classes} classes")
    maps, below = [], num_classes
    for level in range(2, levels + 1):
        groups = min(below, max(2, round(below / 10)))
        if level == 2 and first is not None:
            groups = first
        maps.append((torch.zeros(below, dtype=torch.int64), groups))
        below = groups
    return maps


def _nested(parents: Tensor | None, levels: int) -> list[tuple[Tensor, int]]:
    """Of each coarse level, the super-class of each proxy of the level below, from those of each
    class, `parents` (at least levels - 1, C); and how many there are."""
    rows = [] if parents is None else list(parents[: levels - 1])
    if len(rows) < levels - 1:
        raise ValueError(
            f"hierarchy 'given' with levels {levels} needs a data set with {levels - 1} level(s) "
            f"of super-classes, and this has {len(rows)}"
        )
    maps = []
    for number, row in enumerate(rows):
        names, group = row.unique(return_inverse=True)
        if number == 0:
            below, size = torch.arange(len(row)), len(row)
        parent = group.new_zeros(size).scatter(0, below, group)
        if not torch.equal(parent[below], group):
            raise ValueError(f"level_{number + 1} divides super-classes of level_{number}: no tree")
        maps.append((parent, len(names)))
        below, size = group, len(names)
    return maps
