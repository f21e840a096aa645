"""Small gray pictures of images, and their perceptual hashes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dct

SIDE = 64
"""Pixels of a side of a thumbnail."""
HASHED_SIDE = 32
"""Pixels of a side of the picture that is hashed."""
FREQUENCIES = 8
"""Frequencies of each direction that are kept in a hash."""
HASH_BITS = FREQUENCIES**2


def to_picture(image: NDArray[np.uint8]) -> Image.Image:
    """An image (channels, height, width) in gray."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("L")


def thumbnail(picture: Image.Image) -> NDArray[np.uint8]:
    """(SIDE, SIDE) of a gray picture. Its aspect ratio is lost."""
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def hashed_pixels(picture: Image.Image) -> NDArray[np.uint8]:
    """(HASHED_SIDE, HASHED_SIDE) of a gray picture, for `perceptual_hashes`."""
    return np.asarray(picture.resize((HASHED_SIDE, HASHED_SIDE), Image.Resampling.LANCZOS))


def perceptual_hashes(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The hash of each picture: which of its low frequencies are above their median.

    Source: Zauner: Implementation and Benchmarking of Perceptual Image Hash Functions, 2010,
    section 3.2.1. The bits are those of `phash` in the package ImageHash.

    Args:
        pictures: (N, HASHED_SIDE, HASHED_SIDE) of `hashed_pixels`.

    Returns:
        (N, HASH_BITS / 8), the bits in bytes.
    """
    basis = dct(np.eye(HASHED_SIDE), axis=0)[:FREQUENCIES]
    low = (basis @ pictures.astype(np.float64) @ basis.T).reshape(len(pictures), HASH_BITS)
    return np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1)


def mirrored(pictures: NDArray[Any]) -> NDArray[Any]:
    """Pictures (..., height, width), left and right exchanged."""
    return np.ascontiguousarray(pictures[..., ::-1])
