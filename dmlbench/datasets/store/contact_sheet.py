"""A picture of a packed store: one row of images for each of some classes of each split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dmlbench.datasets.store.reader import Split, Store
from dmlbench.utils.text import count_of

CLASSES_PER_SPLIT, IMAGES_PER_CLASS = 8, 10
"""Rows for a split, and images in a row."""
SIDE, GAP, LABEL = 96, 4, 200
"""Pixels of an image, between images, and of the class names."""


def contact_sheet(store: Store) -> Image.Image:
    """Draw some images of `store`, the training split first.

    The sheet shows up to 8 classes of each split and up to 10 images of each class. It takes
    classes with 10 images, spread evenly over their sorted names; if there are too few, those with
    the most images. The images are spread evenly over the sorted paths of the class, because
    neighbours are often from one folder. Of each image it shows the central square, as a test sees
    it.
    """
    rows: list[tuple[str, np.ndarray]] = []
    for name in sorted(set(store.index["split"]), reverse=True):
        split = store.split(name)
        classes = split.class_names
        for label in _choose_classes(split):
            images = split.rows[split.labels == label]
            text = f"{name}\n{classes[label]}\n{count_of(len(images), 'image')}"
            rows.append((text, _spread(images, IMAGES_PER_CLASS)))
    step = SIDE + GAP
    sheet = Image.new("RGB", (LABEL + IMAGES_PER_CLASS * step, len(rows) * step + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), _load_font()
    for row, (text, images) in enumerate(rows):
        top = GAP + row * step
        for number, line in enumerate(text.split("\n")):
            draw.text((GAP, top + 20 * number), _shorten(line, font), "black", font)
        for column, image in enumerate(images):
            sheet.paste(square(store, image, SIDE), (LABEL + column * step, top))
    return sheet


def _choose_classes(split: Split) -> np.ndarray:
    counts = np.bincount(split.labels, minlength=len(split.class_names))
    full = np.flatnonzero(counts >= IMAGES_PER_CLASS)
    if len(full) >= CLASSES_PER_SPLIT:
        return _spread(full, CLASSES_PER_SPLIT)
    return np.sort(np.argsort(-counts, kind="stable")[:CLASSES_PER_SPLIT])


def _spread(values: np.ndarray, most: int) -> np.ndarray:
    """Up to `most` of `values`, spread evenly from the first to the last."""
    return values[np.unique(np.linspace(0, len(values) - 1, most).round().astype(int))]


def square(store: Store, image: int, side: int) -> Image.Image:
    """The central square of an image, as a test sees it, with `side` pixels."""
    height, width = store.sizes[image]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    pixels = store[image][:, top : top + short, left : left + short].transpose(1, 2, 0)
    rgb = Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (short, short, 3))))
    return rgb.resize((side, side), Image.Resampling.BILINEAR)


def _load_font() -> ImageFont.FreeTypeFont:
    # Pillow's own font has few letters
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(str(path), 13, layout_engine=ImageFont.Layout.BASIC)


def _shorten(text: str, font: ImageFont.FreeTypeFont) -> str:
    """`text` if it fits, else its end after "...": class names differ at their ends."""
    if font.getlength(text) <= LABEL - 2 * GAP:
        return text
    while font.getlength("..." + text) > LABEL - 2 * GAP:
        text = text[1:]
    return "..." + text
