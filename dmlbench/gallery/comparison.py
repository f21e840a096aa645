"""What the page of a data set and a backbone shows: what its losses disagree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmlbench.gallery.differences import contested_queries
from dmlbench.gallery.neighbours import Neighbours
from dmlbench.gallery.ranked_images import RankedImages
from dmlbench.gallery.selection import is_right
from dmlbench.gallery.thumbnails import Sheet
from dmlbench.leaderboard.style import colour
from dmlbench.study.row_names import display_name

MOST_CONTESTED = 150


@dataclass(frozen=True)
class DifferencesPage:
    """The page of a data set and a backbone."""

    study: str
    group: str
    """dataset/backbone."""
    title: str
    losses: Sequence[str]
    """Those that have a page of pictures."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Loss -> why it has no pictures."""
    data: Mapping[str, Any] | None = None
    """What the script of the page reads; None if no two losses can be compared."""
    sheet: bytes = b""
    side: int = 0


def compare_losses(
    images: RankedImages,
    found: Mapping[str, Neighbours],
    by_class: Mapping[str, NDArray[np.float64]],
    sheet: Sheet,
) -> dict[str, Any]:
    """What the script of the page reads.

    Args:
        found: loss -> what is nearest to each query.
        by_class: loss -> mean MAP@R (C,) of each class over all seeds; NaN where there is none.
        sheet: gets the images that the page shows.

    Returns:
        losses: name, shown name and colour of each; classes: names, and `sizes`, their numbers of
        queries; scores: MAP@R in percent of each class, by loss, null where there is none; queries:
        of each contested query the place of its thumbnail, its class, and, by loss, the place of
        the nearest image and its class.
    """
    right = np.stack([is_right(images, neighbours) for neighbours in found.values()])
    queries = []
    for place in contested_queries(right, images.labels[images.queries], MOST_CONTESTED):
        query = images.queries[place]
        nearest = [int(neighbours.nearest[place, 0]) for neighbours in found.values()]
        if not sheet.has_room(images.ids[[query, *nearest]]):
            break
        queries.append(
            {
                "place": sheet.place(images.ids[query]),
                "label": int(images.labels[query]),
                "nearest": [sheet.place(images.ids[row]) for row in nearest],
                "labels": images.labels[nearest].tolist(),
            }
        )
    per_class = np.bincount(images.labels[images.queries], minlength=len(images.class_names))
    return {
        "losses": [
            {"name": loss, "title": display_name(loss), "colour": colour(loss)} for loss in found
        ],
        "classes": images.class_names,
        "sizes": per_class.tolist(),
        "scores": [_percent(by_class[loss]) for loss in found],
        "queries": queries,
        "side": sheet.side,
        "columns": sheet.columns,
    }


def _percent(scores: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(score) else round(100 * score, 1) for score in scores.tolist()]
