"""Packed images: memory-mapped and read-only. Needs numpy, and Pillow if they are JPEG files."""

from __future__ import annotations

import io
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dmlbench.datasets.store.checks import PACK_AGAIN
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.text import error_reason


class Images:
    """The images of one file.

    `images[row]` is an image, uint8 (channels, height, width); `images.sizes[row]` is its height
    and width. An image that is kept as pixels is a view of the mapped file: if you use a part of
    it, only that part is read.
    """

    def __init__(
        self,
        path: Path,
        form: str,
        channels: int,
        sizes: NDArray[np.int64],
        offsets: NDArray[np.int64],
        lengths: NDArray[np.int64] | None = None,
    ) -> None:
        """Map the file `path`.

        Args:
            path: the images one after another.
            form: "pixels" or "jpeg", how each image is kept.
            channels: 1 or 3.
            sizes: (N, 2) heights and widths.
            offsets: (N,) first byte of each image.
            lengths: (N,) bytes of each image; None if each has the bytes of its pixels.
        """
        self.form, self.channels, self.sizes = form, channels, sizes
        self._path, self._offsets = path, offsets
        self._ends = offsets + (sizes.prod(1) * channels if lengths is None else lengths)
        # a plain array, because indexing a memmap is slower
        self._content = np.asarray(np.memmap(path, np.uint8, mode="r"))

    @cached_property
    def shape(self) -> tuple[int, int, int] | None:
        """The shape (channels, height, width) of every image; None if they have several, or are
        JPEG files."""
        if self.form != "pixels" or not len(self) or (self.sizes != self.sizes[0]).any():
            return None
        height, width = self.sizes[0].tolist()
        return self.channels, height, width

    def stack(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images of one `shape` as an array (len(rows), channels, height, width)."""
        assert self.shape
        pixels = self._content.reshape(-1, *self.shape)  # a view
        return pixels[self._offsets[rows] // pixels[0].size]

    def fill_their_file(self) -> bool:
        """Whether the images are the whole file, one after another."""
        order = np.argsort(self._offsets)
        borders = np.append(self._offsets[order], len(self._content))
        follow = not borders[0] and (borders[1:] == self._ends[order]).all()
        return bool(follow and (self.sizes > 0).all())

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        content = self._content[self._offsets[row] : self._ends[row]]
        try:
            return unpack_image(content, self.form, (self.channels, *self.sizes[row].tolist()))
        except (ValueError, OSError) as error:
            raise DatasetError(
                f"{self._path.parent}: it is damaged: image {row}: {error_reason(error)}. "
                f"{PACK_AGAIN}"
            ) from error


def unpack_image(
    content: NDArray[np.uint8], form: str, shape: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """The image in `content`: uint8 of `shape` (channels, height, width).

    Args:
        content: (bytes,) of one image, as `decoding.pack_image` made them.
        form: "pixels" or "jpeg".
        shape: (channels, height, width).

    Raises:
        ValueError: it is no JPEG file, or has another shape.
        OSError: it cannot be decoded.
    """
    if form == "pixels":
        return content.reshape(shape)
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(content.tobytes()))
    except UnidentifiedImageError:
        raise ValueError("it is no JPEG file") from None
    if (len(image.getbands()), *reversed(image.size)) != shape:
        raise ValueError(f"it has the size {image.size}")
    return np.asarray(image).reshape(*shape[1:], shape[0]).transpose(2, 0, 1)


def image_digest(content: bytes) -> str:
    """First 32 hex digits of the sha256 of a packed image's bytes, as the index keeps them."""
    return sha256(content).hexdigest()[:32]
