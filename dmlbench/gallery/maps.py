"""The map of a page: what its script reads, and the thumbnails that all maps of a group share."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmlbench.evaluation.placing import Placed
from dmlbench.gallery.neighbours import Neighbours
from dmlbench.gallery.projection import on_grid, pca, tsne
from dmlbench.gallery.ranked_images import RankedImages, Rows
from dmlbench.gallery.selection import is_right
from dmlbench.gallery.thumbnails import Sheet

MOST_POINTS = 20_000
SIDE, COLUMNS = 32, 160
"""Of the thumbnails that a map shows."""
METHODS = {
    "tsne": "t-SNE of the embeddings: near images are near, large distances mean nothing",
    "pca": "the two directions of the largest variance of the embeddings",
}


def choose_points(images: RankedImages) -> Rows:
    """The rows of the images on a map: all, or a fixed random part of very many."""
    count = len(images.ids)
    if count <= MOST_POINTS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, MOST_POINTS, replace=False))


def map_sheet(images: RankedImages) -> Sheet:
    """The thumbnails of the images on a map, in their order."""
    sheet = Sheet(SIDE, COLUMNS)
    for row in choose_points(images):
        sheet.place(images.ids[row])
    return sheet


def compose_map(
    images: RankedImages,
    placed: Placed,
    found: Neighbours,
    method: str,
    threads: int,
    sheet: str,
) -> dict[str, Any]:
    """What the script of a map reads.

    Args:
        placed: the embeddings of `images`.
        method: a key of METHODS.
        sheet: address of the picture of `map_sheet`, seen from the page.

    Returns:
        points: base64 of uint16 x and y of each point, little-endian; labels: of uint16 or uint32
        classes; right: of a byte for each point: 1 if its nearest image is right, 0 if it is wrong,
        2 if it is no query; classes: names; levels: of each level its name, the names of its
        super-classes, and the super-class of each class.
    """
    rows = choose_points(images)
    placed = placed.part(rows)
    points = on_grid(tsne(placed, threads) if method == "tsne" else pca(placed.vectors))
    right = np.full(len(images.ids), 2, dtype=np.uint8)
    right[images.queries] = is_right(images, found)
    return {
        "points": _encode(points.astype("<u2")),
        "labels": _encode(images.labels[rows].astype("<u4")),
        "right": _encode(right[rows]),
        "classes": images.class_names,
        "levels": [
            [name, level.names, level.of_classes.tolist()] for name, level in images.levels.items()
        ],
        "count": len(rows),
        "side": SIDE,
        "columns": COLUMNS,
        "sheet": sheet,
        "caption": METHODS[method],
        "left_out": len(images.ids) - len(rows),
    }


def _encode(values: NDArray[Any]) -> str:
    return b64encode(values.tobytes()).decode()
