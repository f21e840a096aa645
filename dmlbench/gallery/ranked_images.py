"""The test images of a data set, as its first protocol ranks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmlbench.datasets.store.part import Part
from dmlbench.datasets.store.reader import Store
from dmlbench.evaluation.placing import Placed, place
from dmlbench.evaluation.ranking import unit
from dmlbench.study.poincare_ball import PoincareBall

Rows = NDArray[np.int64]


class Level(NamedTuple):
    """The super-classes of a level."""

    names: list[str]
    """Sorted."""
    of_classes: Rows
    """(C,) super-class of each class, from 0."""


@dataclass(frozen=True)
class RankedImages:
    """N embedded images in ascending order of their ids."""

    store: Store
    ids: Rows
    """(N,) their rows in the store."""
    labels: Rows
    """(N,) class of each, dense: 0 .. C-1, in the order of `class_names`."""
    class_names: list[str]
    """C names, sorted."""
    levels: Mapping[str, Level]
    """The levels of super-classes by name, the nearest first."""
    queries: Rows
    """(Q,) rows of the queries, ascending."""
    gallery: Rows
    """(G,) rows of the gallery, ascending."""

    def class_of(self, row: int) -> str:
        return self.class_names[self.labels[row]]


def read_images(store: Store, part: Part, ids: Rows, level_names: list[str]) -> RankedImages:
    """The images `ids` of `store` that the first repetition of its first protocol ranks.

    Args:
        part: the classes of `store` that are used.
        ids: (N,) of all images that were embedded, in any order. Other images are left out.
        level_names: names of the levels of super-classes, the nearest level first.

    Raises:
        ValueError: the data set ranks no images, as one that only verifies pairs.
    """
    table = store.protocols_of(part)
    name, image, role, repetition = (
        table[column] for column in ("protocol", "id", "role", "repetition")
    )
    embedded = np.isin(image, ids)
    if not embedded.any():
        raise ValueError("no protocol ranks these images")
    is_first = embedded & (name == name[embedded][0])
    is_first &= repetition == repetition[is_first].min()
    ranked, role = image[is_first], role[is_first]
    rows = np.unique(ranked).astype(np.int64)
    names, labels = np.unique(store.index["class_name"][rows].astype(str), return_inverse=True)
    _, example = np.unique(labels, return_index=True)
    levels = {}
    for column, level in zip(store.levels, level_names, strict=True):
        of_classes = store.index[column][rows][example].astype(str)
        groups, places = np.unique(of_classes, return_inverse=True)
        levels[level] = Level(groups.tolist(), places)
    return RankedImages(
        store,
        rows,
        labels.astype(np.int64),
        names.tolist(),
        levels,
        queries=np.searchsorted(rows, np.unique(ranked[role != "gallery"])),
        gallery=np.searchsorted(rows, np.unique(ranked[role != "query"])),
    )


def place_images(
    images: RankedImages,
    embeddings: NDArray[np.floating],
    ids: Rows,
    models: int,
    ball: PoincareBall | None,
) -> Placed:
    """The embeddings of `images` as they are compared, those of several models side by side.

    Args:
        embeddings: (M, models * D) of the images `ids` (M,), in any order.
        ball: where images are compared by hyperbolic distance; None: by cosine.

    Raises:
        UnusableEmbeddings: nothing can be ranked by them.
        ValueError: an image has no embedding.
    """
    order = np.argsort(ids)
    places = np.searchsorted(ids, images.ids, sorter=order)
    found = order[np.minimum(places, len(order) - 1)]
    if missing := np.count_nonzero(ids[found] != images.ids):
        raise ValueError(f"{missing} of {len(images.ids)} images have no embedding")
    if models == 1:
        return place(embeddings[found], ball)
    parts = [unit(part) for part in np.split(embeddings[found], models, axis=1)]
    return place(np.concatenate(parts, axis=1))
