"""Made photographs, and copies of them that are changed as people change them."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance

Change = Callable[[Image.Image], Image.Image]
SIDE = 96


def photograph(seed: int) -> Image.Image:
    """Coloured noise of all sizes, as in a photograph."""
    generator = np.random.default_rng(seed)
    layers = []
    for cells, weight in ((4, 90), (12, 50), (48, 25)):
        noise = generator.normal(0, weight, (cells, cells, 3))
        layer = Image.fromarray(np.clip(noise + 128, 0, 255).astype(np.uint8))
        layers.append(np.asarray(layer.resize((SIDE, SIDE), Image.Resampling.BICUBIC), float) - 128)
    return Image.fromarray(np.clip(sum(layers) + 128, 0, 255).astype(np.uint8))


def line(left: int, top: int, height: int) -> Image.Image:
    """A drawing: a vertical line on white paper."""
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    pixels[top : top + height, left : left + 3] = 0
    return Image.fromarray(pixels)


def as_jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=40)
    return Image.open(file)


def _crop(image: Image.Image) -> Image.Image:
    width, height = image.size
    margin = 0.04
    box = (margin * width, margin * height, (1 - margin) * width, (1 - margin) * height)
    return image.crop(tuple(map(round, box)))


CHANGES: dict[str, Change] = {
    "nothing": lambda image: image,
    "compressed again": as_jpeg,
    "half as large": lambda image: image.resize((SIDE // 2, SIDE // 2)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "cropped": _crop,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
