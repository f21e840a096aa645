"""Thumbnails of many images in one picture, of which a page shows the parts."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO

from PIL import Image

from dmlbench.datasets.store.contact_sheet import square
from dmlbench.datasets.store.reader import Store

MOST_PIXELS = 16_000
"""Of a side of the picture: WebP has at most 16,383."""
QUALITY = 70


class Sheet:
    """A picture of thumbnails, each image once, in rows of `columns`.

    >>> sheet = Sheet(side=32, columns=64)
    >>> [sheet.place(image) for image in (7, 9, 7)]
    [0, 1, 0]
    """

    def __init__(self, side: int, columns: int) -> None:
        """
        Args:
            side: of a thumbnail in pixels.
        """
        self.side, self.columns = side, columns
        self._places: dict[int, int] = {}

    def has_room(self, images: Iterable[int]) -> bool:
        """Whether it can hold these images beside its own."""
        new = {int(image) for image in images} - self._places.keys()
        return len(self._places) + len(new) <= self.columns * (MOST_PIXELS // self.side)

    def place(self, image: int) -> int:
        """The place of the image with this id, which is put there if it is new."""
        return self._places.setdefault(int(image), len(self._places))

    def to_webp(self, store: Store) -> bytes:
        """The picture of the images of `store`. Equal images give equal bytes."""
        rows = -(-len(self._places) // self.columns)
        picture = Image.new("RGB", (self.columns * self.side, max(rows, 1) * self.side), "white")
        for image, place in self._places.items():
            row, column = divmod(place, self.columns)
            picture.paste(square(store, image, self.side), (column * self.side, row * self.side))
        content = BytesIO()
        picture.save(content, "WEBP", quality=QUALITY, method=2)
        return content.getvalue()
