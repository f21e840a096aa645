"""What the page of a loss shows: examples of its retrieval, and the classes that it confuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dmlbench.evaluation.placing import Placed
from dmlbench.gallery.neighbours import Neighbours
from dmlbench.gallery.ranked_images import RankedImages
from dmlbench.gallery.selection import (
    closest_successes,
    confusions,
    hardest_failures,
    is_right,
)
from dmlbench.gallery.thumbnails import Sheet

NEAREST = 6
"""Images that are shown of each ranking."""
SIDE, COLUMNS = 80, 16
"""Of the thumbnails of examples."""
MOST_FAILURES, MOST_SUCCESSES, MOST_CONFUSIONS = 18, 9, 20


class Thumbnail(NamedTuple):
    """An image of a page: its place in the sheet, and the class below it."""

    column: int
    row: int
    name: str
    verdict: str = ""
    """"right" or "wrong"; empty for a query."""


class Example(NamedTuple):
    """A query and what is nearest to it."""

    query: Thumbnail
    nearest: list[Thumbnail]
    own: Thumbnail | None
    """The nearest image of the query's class, if none of `nearest` is of it."""
    note: str


class ConfusedClasses(NamedTuple):
    query: Thumbnail
    nearest: Thumbnail
    times: int
    queries: int
    """All queries of the class of `query`."""


@dataclass(frozen=True)
class GalleryPage:
    """The page of a loss, which is drawn from the embeddings of one seed."""

    study: str
    cell: str
    """dataset/backbone/loss."""
    title: str
    key: str
    """It names all that the page is made from."""
    facts: Sequence[str] = ()
    groups: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    """Title -> examples."""
    confused: Sequence[ConfusedClasses] = ()
    sheet: bytes = b""
    """WebP; see `thumbnails`."""
    side: int = 0
    """Of a thumbnail of the sheet in pixels."""
    map: Mapping[str, Any] | None = None
    """What the script of the map reads; see `compose_map`."""
    problem: str = ""
    """Why there are no pictures, or why the loss cannot be compared."""

    @property
    def loss(self) -> str:
        return self.cell.rpartition("/")[2]


class Examples:
    """Makes the thumbnails of a page."""

    def __init__(
        self, images: RankedImages, placed: Placed, found: Neighbours, sheet: Sheet
    ) -> None:
        self.images, self.placed, self.found, self.sheet = images, placed, found, sheet

    def thumbnail(self, row: int, verdict: str = "") -> Thumbnail:
        """The image at a row of `images`."""
        place = self.sheet.place(self.images.ids[row])
        down, right = divmod(place, self.sheet.columns)
        return Thumbnail(right, down, self.images.class_of(row), verdict)

    def example(self, place: int) -> Example:
        """The query at a place of `images.queries`."""
        images, found = self.images, self.found
        query = images.queries[place]
        label = images.labels[query]
        nearest = found.nearest[place, :NEAREST]
        own = int(found.own[place])
        note = self._describe_nearest(found.similarities[place, :1])
        if np.isfinite(margin := found.margins[place]):
            side = "farther" if margin < 0 else "nearer"
            amount = "" if self.placed.ball else f"{abs(margin):.3f} "
            note += f"; its own class is {amount}{side} than any other"
        return Example(
            self.thumbnail(query),
            [self.thumbnail(r, "right" if images.labels[r] == label else "wrong") for r in nearest],
            self.thumbnail(own, "right") if own >= 0 and own not in nearest else None,
            note,
        )

    def _describe_nearest(self, similarity: NDArray[np.float32]) -> str:
        if self.placed.ball is None:
            return f"cosine to the nearest image {similarity[0]:.3f}"
        distance = self.placed.distances(similarity)[0]
        return f"hyperbolic distance to the nearest image {distance:.3f}"

    def groups(self) -> dict[str, list[Example]]:
        """The examples by title; titles without examples are left out."""
        groups = {
            "Failures, the most certain first": hardest_failures(
                self.images, self.found, MOST_FAILURES
            ),
            "Successes, the narrowest first": closest_successes(
                self.images, self.found, MOST_SUCCESSES
            ),
        }
        return {title: [*map(self.example, places)] for title, places in groups.items() if places}

    def confused(self) -> list[ConfusedClasses]:
        """The classes that are most often taken for others."""
        return [
            ConfusedClasses(
                self.thumbnail(pair.query),
                self.thumbnail(pair.nearest, "wrong"),
                pair.times,
                pair.queries,
            )
            for pair in confusions(self.images, self.found, MOST_CONFUSIONS)
        ]


def describe(images: RankedImages, found: Neighbours, seed: int) -> list[str]:
    """What the pictures were made from, in sentences."""
    right = is_right(images, found)
    return [
        f"Seed {seed}: {len(images.queries):,} queries, {len(images.gallery):,} images in the "
        f"gallery, {len(images.class_names):,} classes that training has not seen.",
        f"The nearest image is right for {100 * right.mean():.2f} % of the queries.",
    ]
