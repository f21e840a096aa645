"""The format of a packed store: its version, the names of its files, and its approximate size."""

from __future__ import annotations

MAKES_NUMBERS = False
FORMAT = 3
"""Version of the format. It is part of a store's name, so stores of different formats stay
apart."""

VALIDATION = "validation"
"""The split of images that a data set itself holds out of its training images. They train too,
unless a study holds them out to choose settings."""

ZERO_SHOT = "zero_shot"
"""The protocol in which each test image is a query, and all others are the gallery."""

MANIFEST_FILE = "manifest.json"
IMAGES_FILE = "images.bin"
INDEX_FILE = "index.parquet"
PROTOCOLS_FILE = "protocols.parquet"
PAIRS_FILE = "pairs.parquet"

ASPECT_RATIO = 4 / 3
"""Long side of a usual image, as a multiple of its short side."""
JPEG_SHARE = 0.25
"""Bytes of a JPEG at `decoding.JPEG_QUALITY`, as a share of the bytes of its pixels."""


def store_bytes(images: int, channels: int, side: int, form: str) -> float:
    """About how many bytes a store of usual images takes.

    Args:
        images: number of images.
        channels: 1 or 3.
        side: short side in pixels.
        form: "pixels" or "jpeg".

    >>> store_bytes(1000, 3, 256, "pixels") / 1e6  # megabytes
    262.144
    """
    share = JPEG_SHARE if form == "jpeg" else 1
    return images * channels * side * side * ASPECT_RATIO * share
