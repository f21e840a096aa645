"""A picture of a packed store: some classes of each split, one a row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dmlbench.datasets.store import Store

CLASSES, IMAGES = 8, 10
"""Rows of a split, and images of a row."""
SIDE, GAP, LABEL = 96, 4, 200
"""Pixels of an image, between images, and of the classes' names."""


def contact_sheet(store: Store) -> Image.Image:
    """Classes spread evenly over each split, by their names, with the first images of each by
    their paths; of an image the central square, as a test sees it."""
    rows: list[tuple[str, np.ndarray]] = []
    for split in sorted(set(store.index["split"]), reverse=True):
        found = store.split(split)
        names = found.class_names
        for label in np.unique(np.linspace(0, len(names) - 1, CLASSES).round().astype(int)):
            images = found.rows[found.labels == label]
            rows.append((f"{split}\n{names[label]}\n{len(images)} images", images[:IMAGES]))
    step = SIDE + GAP
    sheet = Image.new("RGB", (LABEL + IMAGES * step, len(rows) * step + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), _font()
    for line, (text, images) in enumerate(rows):
        top = GAP + line * step
        for number, part in enumerate(text.split("\n")):
            draw.text((GAP, top + 20 * number), _fitting(part, font), "black", font)
        for column, image in enumerate(images):
            sheet.paste(_thumbnail(store, image), (LABEL + column * step, top))
    return sheet


def _thumbnail(store: Store, image: int) -> Image.Image:
    height, width = store.sizes[image]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = store[image][:, top : top + side, left : left + side].transpose(1, 2, 0)
    small = Image.fromarray(np.ascontiguousarray(np.broadcast_to(square, (side, side, 3))))
    return small.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def _font() -> ImageFont.FreeTypeFont:
    # Pillow's own font has few letters
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(str(path), 13, layout_engine=ImageFont.Layout.BASIC)


def _fitting(text: str, font: ImageFont.FreeTypeFont) -> str:
    """`text`, or as much of its end as there is room for: where class names differ."""
    if font.getlength(text) <= LABEL - 2 * GAP:
        return text
    while font.getlength("..." + text) > LABEL - 2 * GAP:
        text = text[1:]
    return "..." + text
