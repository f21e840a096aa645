"""Packed images: memory-mapped, read-only. Needs numpy, and Pillow where they are JPEG files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class Images:
    """The images of a file: `images[row]` is (channels, height, width) uint8, and `sizes[row]` its
    height and width.

    One that is kept as pixels is a view of the mapped file: of a part of it only that part is read.
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
        """Map the file `path`, which holds images of the `form` "pixels" or "jpeg".

        Args:
            sizes: (N, 2) heights and widths.
            offsets: (N,) of the first byte of each.
            lengths: (N,) bytes of each; None: those of its pixels.

        Raises ValueError if the file ends elsewhere than the last image.
        """
        self.form, self.channels, self.sizes = form, channels, sizes
        self._offsets = offsets
        self._ends = offsets + (sizes.prod(1) * channels if lengths is None else lengths)
        # a plain array, as indexing a memmap costs more
        self._content = np.asarray(np.memmap(path, np.uint8, mode="r"))
        if max(self._ends) != len(self._content):
            raise ValueError("its files do not belong together")

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        content = self._content[self._offsets[row] : self._ends[row]]
        return unpacked(content, self.form, (self.channels, *self.sizes[row].tolist()))


def unpacked(
    content: NDArray[np.uint8], form: str, shape: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """(channels, height, width) = `shape` uint8, from the bytes of an image of that `form`."""
    if form == "pixels":
        return content.reshape(shape)
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(content.tobytes())))
    return pixels.reshape(*shape[1:], shape[0]).transpose(2, 0, 1)
