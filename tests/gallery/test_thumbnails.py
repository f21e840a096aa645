"""A sheet holds each image once, at its place, and no more than WebP can."""

from io import BytesIO

import numpy as np
from PIL import Image

from dmlbench.datasets.store.contact_sheet import square
from dmlbench.gallery.thumbnails import MOST_PIXELS, Sheet


def test_each_image_is_at_its_place(glyphs):
    sheet = Sheet(side=32, columns=3)
    images = [40, 3, 17, 40, 9]
    places = [sheet.place(image) for image in images]
    assert places == [0, 1, 2, 0, 3]
    picture = Image.open(BytesIO(sheet.to_webp(glyphs)))
    assert picture.size == (96, 64)
    for image, place in zip(images, places, strict=True):
        row, column = divmod(place, 3)
        part = picture.crop((32 * column, 32 * row, 32 * column + 32, 32 * row + 32))
        wanted = np.asarray(square(glyphs, image, 32), float)
        assert np.abs(np.asarray(part, float) - wanted).mean() < 6  # WebP is lossy


def test_a_full_sheet_has_room_only_for_what_it_holds():
    sheet = Sheet(side=MOST_PIXELS // 2, columns=2)
    assert sheet.has_room([1, 2, 3, 3, 4])
    assert not sheet.has_room([1, 2, 3, 4, 5])
    for image in (1, 2, 3, 4):
        sheet.place(image)
    assert sheet.has_room([4, 1])
    assert not sheet.has_room([5])
