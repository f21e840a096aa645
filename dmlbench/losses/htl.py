"""Deep Metric Learning with Hierarchical Triplet Loss.

Ge, Huang, Dong, Scott; ECCV 2018; arXiv 1810.06951. Before each epoch the training classes are
merged into a tree by their distances. The margin of a triplet follows from the level that unites
its two classes, and batches are filled with classes that are near each other.

Defaults: the paper's levels (16), beta (0.1), margin before the first tree (0.2) and tree update
(each epoch).

Family: tree.

Differs: the paper leaves these points open, and we chose: single linkage; squared distances in the
loss; 1/(2 Z) over all triplets of a batch, active or not; one epoch of plain triplet loss before
the first tree; neighbourhoods of 4 classes x 4 images, which fill the usual batches (32, 80, 112,
128) whole, without a class twice in a batch; an image that is drawn twice, from a class with too
few images, is its own positive; a class of one image has spread 0 and does not count in d_0.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor

from dmlbench.losses.base import Embed, Loss, distances, pair_masks, squared_distances, unit_length

GIVES_TREE = True
BATCH_DIVISORS = ("neighbours", "images_per_class")
LEAST = {
    "levels": 1,
    "warmup_epochs": 0,
    "rebuild_every": 1,
    "neighbours": 1,
    "images_per_class": 2,
}
MOST = {"levels": 1000, "beta": 1000, "initial_margin": 1000}
SEARCH_SPACE = {
    "beta": {"low": 0.0, "high": 0.5},
    "initial_margin": {"low": 0.05, "high": 1.0, "log": True},
}


class HTL(Loss):
    """Hierarchical triplet loss with anchor-neighbour batches.

    A batch holds l' = batch size / (`neighbours` x `images_per_class`) neighbourhoods. Two rows of
    one class are a pair (a, p). So an image that is drawn twice, from a class with too few images,
    is its own positive.

    `tree_linkage` is how the distance of two nodes follows from that of their classes. `squared`
    says which distances the loss compares. The first tree is built after `warmup_epochs`, and a new
    one every `rebuild_every` epochs.
    """

    nodes: Tensor  # (levels, C): node of each class at each level below the top, which is one node
    thresholds: Tensor  # (levels + 1,): d_l, below which the nodes of level l merge
    spread: Tensor  # (C,): s_c, mean squared distance within a class
    means: Tensor  # (C, D): mean embedding of each class
    built: Tensor  # whether there is a tree
    epoch: Tensor  # epochs begun

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        parents: Tensor | None = None,
        *,
        levels: int = 16,
        beta: float = 0.1,
        initial_margin: float = 0.2,
        tree_linkage: Literal["single", "average"] = "single",
        squared: bool = True,
        warmup_epochs: int = 1,
        rebuild_every: int = 1,
        neighbours: int = 4,
        images_per_class: int = 4,
    ) -> None:
        super().__init__()
        self.beta = beta
        self.initial_margin = initial_margin
        self.tree_linkage = tree_linkage
        self.squared = squared
        self.warmup_epochs = warmup_epochs
        self.rebuild_every = rebuild_every
        self.neighbours = neighbours
        self.images_per_class = images_per_class
        self.register_buffer("nodes", torch.zeros(levels, num_classes, dtype=torch.int32))
        self.register_buffer("thresholds", torch.zeros(levels + 1))
        self.register_buffer("spread", torch.zeros(num_classes))
        self.register_buffer("means", torch.zeros(num_classes, embedding_dim))
        self.register_buffer("built", torch.tensor(False))
        self.register_buffer("epoch", torch.tensor(0))

    def compute(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        unit = unit_length(embeddings)
        distance = squared_distances(unit, unit) if self.squared else distances(unit, unit)
        return mean_triplet_hinge(distance, self.margins(labels), *pair_masks(labels)) / 2

    def margins(self, labels: Tensor) -> Tensor:
        """The margin alpha of each anchor (row) and negative (column), (N, N).

        It is beta + d_l - s_c. Level l unites their two classes, and c is the anchor's class.
        """
        node = self.nodes[:, labels]
        level = (node[:, :, None] != node[:, None, :]).sum(dim=0)
        margin = self.beta + self.thresholds[level] - self.spread[labels, None]
        return torch.where(self.built, margin, self.initial_margin)

    @torch.no_grad()
    def refresh(self, embed: Embed) -> tuple[()]:
        """Build the tree of the present distances of classes, if this epoch begins with a tree."""
        epochs_since_warmup = int(self.epoch) - self.warmup_epochs
        self.epoch += 1
        if epochs_since_warmup >= 0 and epochs_since_warmup % self.rebuild_every == 0:
            embeddings, labels = embed()
            means, spread, d_0 = class_statistics(embeddings, labels, len(self.spread))
            thresholds = level_thresholds(d_0, len(self.nodes))
            nodes = class_tree(class_distances(means), thresholds, self.tree_linkage)
            for buffer, value in (
                (self.nodes, nodes),
                (self.thresholds, thresholds),
                (self.spread, spread),
                (self.means, means),
            ):
                buffer.copy_(torch.from_numpy(value))
            self.built.fill_(True)
        return ()

    def statistics(self) -> dict[str, float]:
        """Smallest, median and largest margin alpha over all ordered pairs of classes."""
        if not self.built or len(self.spread) < 2:
            return dict.fromkeys(("alpha_min", "alpha_median", "alpha_max"), self.initial_margin)
        margins = self.beta + self.thresholds[:, None] - self.spread
        # Level l unites a class with those that are in its node there but not one level below
        nodes = self.nodes.cpu().numpy()
        bottom, top = np.ones_like(nodes[:1]), np.full_like(nodes[:1], len(self.spread))
        sizes = np.vstack([bottom, *(np.bincount(node)[node] for node in nodes), top])
        pairs = np.diff(sizes, axis=0).ravel()
        values = margins.cpu().numpy().ravel()
        order = np.argsort(values)
        cumulative = np.cumsum(pairs[order])
        total = cumulative[-1]
        places = np.searchsorted(cumulative, [1, (total + 1) // 2, total])
        smallest, median, largest = values[order][places].tolist()
        return {"alpha_min": smallest, "alpha_median": median, "alpha_max": largest}

    def artefact(self) -> dict[str, Any]:
        """The last tree; empty before the first one.

        It has `linkage`, its name; `merges`, a row of scipy's linkage each (two nodes, their
        distance, their classes); `thresholds` d_0 .. d_L; and `spread` s_c of each class.
        """
        if not self.built:
            return {}
        distance = class_distances(self.means.cpu().double().numpy())
        return {
            "linkage": self.tree_linkage,
            "merges": linkage(distance, self.tree_linkage).tolist() if len(distance) else [],
            "thresholds": self.thresholds.tolist(),
            "spread": self.spread.tolist(),
        }

    def batches(
        self, labels: NDArray[Any], steps: int, batch_size: int, seed: int, epoch: int
    ) -> NDArray[np.int64]:
        """Anchor-neighbour batches: l' random classes, each followed by its nearest classes.

        A class is in a batch once. Before the first tree, all classes are random.

        Raises:
            ValueError: `batch_size` is no multiple of neighbours x images_per_class, or needs more
                classes than there are.
        """
        per_class = self.images_per_class
        if batch_size % (self.neighbours * per_class):
            raise ValueError(
                f"batch_size {batch_size} is not a multiple of neighbours {self.neighbours} x "
                f"images_per_class {per_class}"
            )
        present, counts = np.unique(labels, return_counts=True)
        wanted = batch_size // per_class
        if wanted > len(present):
            raise ValueError(
                f"batch_size {batch_size} / images_per_class {per_class} = {wanted} classes, "
                f"but there are {len(present)}"
            )
        random = np.random.default_rng([seed, epoch])
        classes = np.stack([random.choice(present, wanted, replace=False) for _ in range(steps)])
        if self.built:
            anchors = classes[:, : wanted // self.neighbours]
            near = nearest_classes(self.means.cpu().numpy(), np.unique(anchors), present, wanted)
            classes = np.stack([neighbourhoods(row, near, self.neighbours) for row in anchors])
        by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
        images = dict(zip(present.tolist(), by_class, strict=True))
        rows = [
            random.choice(images[c], per_class, replace=len(images[c]) < per_class)
            for c in classes.ravel().tolist()
        ]
        return np.stack(rows).reshape(steps, batch_size)


def mean_triplet_hinge(
    distance: Tensor, margin: Tensor, positive: Tensor, negative: Tensor
) -> Tensor:
    """Mean over all triplets of [d_ap - d_an + margin_an]_+; 0 without a triplet.

    For anchor a the hinges sum to sum_p c_p u_p - sum_n c'_n v_n, where u_p = d_ap, v_n = d_an -
    margin_an, c_p counts the v below u_p and c'_n the u above v_n. Sorting gives the counts, which
    are constant wherever the hinge has a derivative: O(N² log N), exact in value and gradient.

    Args:
        distance: d, (N, N); rows are anchors.
        margin: margin of each anchor and negative (N, N).
        positive: mask of the positive pairs (N, N).
        negative: mask of the negative pairs (N, N).
    """
    shifted = distance - margin
    with torch.no_grad():
        u = distance.masked_fill(~positive, -torch.inf).sort(dim=1).values
        v = shifted.masked_fill(~negative, torch.inf).sort(dim=1).values
        above = torch.searchsorted(v, distance) * positive
        below = (len(u) - torch.searchsorted(u, shifted, right=True)) * negative
    triplets = (positive.sum(dim=1) * negative.sum(dim=1)).sum()
    return (above * distance - below * shifted).sum() / triplets.clamp(min=1)


def class_statistics(
    embeddings: Tensor, labels: Tensor, num_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Means of classes (C, D), their spreads s_c (C,), and d_0, the mean spread.

    The spread is the mean squared distance of two images of a class, by sum_{i != j}
    ||r_i - r_j||² = 2 n² (1 - ||mean||²). Classes with one image have spread 0, and d_0 is without
    them.

    Args:
        embeddings: (M, D), of unit length.
        labels: (M,), in [0, C).
    """
    labels = labels.cpu()
    # On the CPU the order of the sum is fixed, so every run gets equal bits
    sums = torch.zeros(num_classes, embeddings.shape[1], dtype=torch.float64)
    sums.index_add_(0, labels, embeddings.cpu().double())
    counts = labels.bincount(minlength=num_classes).double()  # integers would divide to float32
    means = sums / counts.clamp(min=1)[:, None]
    several = counts > 1
    spread = 2 * counts / (counts - 1).clamp(min=1) * (1 - means.square().sum(dim=1)).clamp(min=0)
    spread = spread.where(several, 0)
    return means.numpy(), spread.numpy(), float(spread.sum() / several.sum().clamp(min=1))


def class_distances(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean squared distances of the images of two classes, 2 - 2 <mean_p, mean_q>.

    Args:
        means: mean of the unit vectors of each class (C, D).

    Returns:
        the distances of all pairs p < q in scipy's condensed order, (C (C - 1) / 2,).
    """
    count = len(means)
    result = np.empty(count * (count - 1) // 2)
    end = 0
    for first in range(0, count, 1024):
        block = 2 - 2 * means[first : first + 1024] @ means[first:].T
        np.maximum(block, 0, out=block)  # below 0 by rounding, where images coincide
        for row, values in enumerate(block):
            begin, end = end, end + count - first - row - 1
            result[begin:end] = values[row + 1 :]
    return result


def level_thresholds(d_0: float, levels: int) -> NDArray[np.float64]:
    """d_l = d_0 + l (4 - d_0) / L for l = 0 .. L, (L + 1,)."""
    return d_0 + np.arange(levels + 1) * (4 - d_0) / levels


def class_tree(
    distance: NDArray[np.float64],
    thresholds: NDArray[np.float64],
    method: Literal["single", "average"],
) -> NDArray[np.int32]:
    """Node of each class at each level l < L, (L, C). Nodes nearer than d_l are one.

    So the level that unites two classes is the number of levels at which their nodes differ.

    Args:
        distance: distances of classes, in the order of `class_distances`.
        thresholds: d_0 .. d_L, (L + 1,).
        method: scipy's linkage.
    """
    if not len(distance):
        return np.zeros((len(thresholds) - 1, 1), dtype=np.int32)
    merges = linkage(distance, method)
    # fcluster merges at distances <= t, the paper at < t
    return np.stack(
        [fcluster(merges, np.nextafter(t, -np.inf), "distance") for t in thresholds[:-1]]
    )


def nearest_classes(
    means: NDArray[np.floating], anchors: NDArray[np.int64], others: NDArray[np.int64], count: int
) -> dict[int, list[int]]:
    """The `count` classes of `others` that are nearest to each class of `anchors`, nearest first.

    `means` (C, D) are the means of all classes; `anchors` and `others` are numbers of classes.
    """
    result: dict[int, list[int]] = {}
    for first in range(0, len(anchors), 1024):
        block = anchors[first : first + 1024]
        distance = -(means[block] @ means[others].T)
        near = np.argpartition(distance, count - 1, axis=1)[:, :count]
        order = np.argsort(np.take_along_axis(distance, near, axis=1), axis=1, kind="stable")
        near = others[np.take_along_axis(near, order, axis=1)]
        result.update(zip(block.tolist(), near.tolist(), strict=True))
    return result


def neighbourhoods(anchors: NDArray[np.int64], near: dict[int, list[int]], size: int) -> list[int]:
    """Classes of a batch: each anchor, then its size - 1 nearest that are not yet in the batch."""
    taken = set(anchors.tolist())
    result = []
    for anchor in anchors.tolist():
        fresh = [other for other in near[anchor] if other not in taken][: size - 1]
        taken.update(fresh)
        result += [anchor, *fresh]
    return result
