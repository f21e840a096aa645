import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dmlbench.datasets import DatasetError, Row
from dmlbench.datasets.decoding import CHUNK, _pixels, decode


def row(number: int) -> Row:
    return Row(f"image {number}", "class", (), "train")


def paint(value: int, side: int) -> Image.Image:
    return Image.new("L", (side, side), value)


def refuse(side: int) -> Image.Image:
    raise ValueError("no such letter")


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.sampled_from([1, 3]))
def test_the_short_side_becomes_the_side_and_the_shape_is_kept(
    png: Callable[[np.ndarray], bytes], height: int, width: int, side: int, channels: int
):
    shape = (height, width) if channels == 1 else (height, width, 3)
    original = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    pixels = _pixels(png(original), side, channels)
    assert pixels.dtype == np.uint8
    assert min(pixels.shape[1:]) == side
    assert pixels.shape[0] == channels
    long = side * max(height, width) / min(height, width)
    assert abs(max(pixels.shape[1:]) - long) <= 0.5
    assert (pixels.shape[1] >= pixels.shape[2]) == (height >= width) or pixels.shape[1] == side
    if min(height, width) == side:
        np.testing.assert_array_equal(pixels.transpose(1, 2, 0).reshape(shape), original)


def test_shrinking_averages_and_skips_no_pixel(png: Callable[[np.ndarray], bytes]):
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    assert np.ptp(_pixels(png(board.astype(np.uint8)), 8, 1)[0, 1:-1, 1:-1].astype(int)) < 10


def test_gray_and_palette_images_become_rgb(png: Callable[[np.ndarray], bytes]):
    gray = np.full((4, 4), 7, np.uint8)
    assert (_pixels(png(gray), 4, 3) == 7).all()
    assert _pixels(png(gray), 4, 3).shape == (3, 4, 4)


@pytest.mark.parametrize("workers", [1, 3])
def test_order_is_kept_and_the_reader_is_only_so_far_ahead(workers: int):
    asked = 0

    def images():
        nonlocal asked
        for asked in range(20 * CHUNK):
            yield row(asked), partial(paint, asked % 256)

    found = []
    for decoded in decode(images(), 2, 1, workers):
        found += [decoded.pixels[4 * i] for i in range(len(decoded.rows))]
        assert decoded.sizes == [(2, 2)] * len(decoded.rows)
        assert asked < len(found) + (2 * workers + 1) * CHUNK
    assert found == [number % 256 for number in range(20 * CHUNK)]


def test_images_that_cannot_be_decoded_are_named_and_after_the_twentieth_no_more_is_read():
    images = ((row(i), refuse if i % 5 == 3 else partial(paint, 0)) for i in itertools.count())
    with pytest.raises(DatasetError) as caught:
        list(decode(images, 2, 1, 1))
    text = str(caught.value)
    assert all(f"image {5 * i + 3}: cannot decode this image" in text for i in range(20))
    assert text.count("no such letter") == 20


def test_where_a_person_wrote_it_is_said_of_a_damaged_image():
    damaged = Row("a.png", "class", (), "train", origin="my.csv, line 7")
    with pytest.raises(DatasetError, match=r"my\.csv, line 7: a\.png: cannot decode"):
        list(decode([(damaged, refuse), (row(1), partial(paint, 0))], 2, 1, 1))
