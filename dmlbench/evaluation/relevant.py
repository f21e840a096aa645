"""The images of a gallery that are relevant to each query, at each level of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Relevant:
    """Where the classes of Q queries are in a gallery of G images.

    Level 0 are the classes; level 1 and the following ones, if there are any, super-classes.
    """

    classes: NDArray[np.int32]
    """(levels, G) class of each image of the gallery, from 0."""
    wanted: NDArray[np.int32]
    """(levels, Q) class of each query; numbers as in `classes`."""
    by_class: NDArray[np.int64]
    """(levels, G) places in the gallery, sorted by class."""
    lowest: NDArray[np.int64]
    """(levels, Q) where the class of each query begins in `by_class`."""
    highest: NDArray[np.int64]
    """(levels, Q) where it ends."""
    own: NDArray[np.int64]
    """(Q,) the place of the query itself in the gallery; -1 if it is not in it."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """(Q,) R, the number of images of the query's class, without the query itself."""
        return self.highest[0] - self.lowest[0] - (self.own >= 0)

    @property
    def levels(self) -> int:
        """The number of levels, with that of the classes."""
        return len(self.by_class)


def find_relevant(
    levels: Sequence[NDArray[np.integer]],
    queries: NDArray[np.integer],
    gallery: NDArray[np.integer],
) -> Relevant:
    """Find the classes of the queries in the gallery.

    Args:
        levels: class (N,) of each image, then its super-classes.
        queries: (Q,) images, unique and ascending.
        gallery: (G,) images, unique and ascending.
    """
    # super-classes may be any numbers; 32 bits are compared twice as fast as 64
    numbered = np.stack([np.unique(labels, return_inverse=True)[1] for labels in levels])
    classes, wanted = (numbered[:, rows].astype(np.int32, order="C") for rows in (gallery, queries))
    by_class = classes.argsort(axis=1, kind="stable")
    lowest, highest = (
        np.stack(
            [
                np.searchsorted(own, of_queries, side, sorter=order)
                for own, of_queries, order in zip(classes, wanted, by_class, strict=True)
            ]
        )
        for side in ("left", "right")
    )
    own = np.where(np.isin(queries, gallery), np.searchsorted(gallery, queries), -1)
    return Relevant(classes, wanted, by_class, lowest, highest, own)
