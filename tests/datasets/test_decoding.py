import io
import itertools
import struct
import zlib
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dmlbench.datasets import Row
from dmlbench.datasets.decoding import (
    CHUNK_BYTES,
    CHUNK_IMAGES,
    MAX_ASPECT_RATIO,
    decode,
    from_file,
    load_scaled,
)
from dmlbench.utils.errors import DatasetError


def row(number: int) -> Row:
    return Row(f"image {number}", "class", (), "train")


def pixels_of(source: bytes, side: int, channels: int) -> np.ndarray:
    """(channels, height, width), as a store keeps them."""
    (decoded,) = decode([(row(0), source)], side, channels, "pixels", 1)
    (image,) = decoded.images
    shape = channels, image.height, image.width
    return np.frombuffer(decoded.content, np.uint8).reshape(shape)


def paint(value: int, side: int) -> Image.Image:
    return Image.new("L", (side, side), value)


def fail(side: int) -> Image.Image:
    raise ValueError("no such letter")


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.sampled_from([1, 3]))
def test_the_short_side_is_scaled_and_the_aspect_ratio_is_kept(
    png: Callable[[np.ndarray], bytes], height: int, width: int, side: int, channels: int
):
    shape = (height, width) if channels == 1 else (height, width, 3)
    original = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image = load_scaled(png(original), side, channels)
    assert image.mode == {1: "L", 3: "RGB"}[channels]
    assert min(image.size) == side
    ratio = max(height, width) / min(height, width)
    assert abs(max(image.size) - side * min(ratio, MAX_ASPECT_RATIO)) <= 0.5
    assert (image.height >= image.width) == (height >= width) or image.height == side
    if min(height, width) == side and ratio <= MAX_ASPECT_RATIO:
        np.testing.assert_array_equal(np.asarray(image), original)


def test_shrinking_averages_over_all_pixels(png: Callable[[np.ndarray], bytes]):
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    shrunk = np.asarray(load_scaled(png(board.astype(np.uint8)), 8, 1))
    assert np.ptp(shrunk[1:-1, 1:-1].astype(int)) < 10


@pytest.mark.parametrize("upright", [False, True])
def test_a_long_strip_is_cropped_to_its_middle(png: Callable[[np.ndarray], bytes], upright: bool):
    strip = np.zeros((1, 5001), np.uint8)
    strip[0, 2500] = 255  # the middle
    image = np.asarray(load_scaled(png(strip.T if upright else strip), 8, 1))
    image = image.T if upright else image
    assert image.shape == (8, 8 * MAX_ASPECT_RATIO)
    assert image[:, 16:20].max() > 100
    assert not image[:, :8].any()


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_gray_palette_cmyk_and_transparent_images_become_rgb(
    png: Callable[[np.ndarray], bytes],
):
    gray = np.full((4, 4), 7, np.uint8)
    assert np.array_equal(np.asarray(load_scaled(png(gray), 4, 3)), np.full((4, 4, 3), 7))
    colour = Image.new("RGB", (8, 8), (200, 40, 90))
    odd = {
        "palette": encoded(colour.quantize(4), "PNG"),
        "palette with a transparent colour": encoded(colour.quantize(4), "GIF", transparency=0),
        "CMYK": encoded(colour.convert("CMYK"), "JPEG", quality=100),
        "transparent": encoded(
            Image.merge("RGBA", [*colour.split(), Image.new("L", (8, 8))]), "PNG"
        ),
        "1 bit": encoded(Image.new("1", (8, 8), 1), "PNG"),
        "gray with alpha": encoded(Image.new("LA", (8, 8), (50, 9)), "PNG"),
    }
    expected = {"1 bit": (255, 255, 255), "gray with alpha": (50, 50, 50)}
    for name, content in odd.items():
        pixels = np.asarray(load_scaled(content, 8, 3)).astype(int)
        assert np.abs(pixels - expected.get(name, (200, 40, 90))).max() <= 3, name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_every_exif_orientation_is_turned_upright(kind: str, orientation: int):
    # how a camera in this orientation stores the scene: EXIF 2.3, the place of row 0 and column 0
    scene = np.zeros((16, 24), np.uint8)
    scene[:8, :8], scene[8:, :8] = 250, 120  # bright top left, gray bottom left
    stored = {
        1: scene,
        2: scene[:, ::-1],
        3: scene[::-1, ::-1],
        4: scene[::-1],
        5: scene.T,
        6: scene.T[::-1],
        7: scene.T[::-1, ::-1],
        8: scene.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif)
    assert np.abs(np.asarray(load_scaled(content, 16, 1)).astype(int) - scene).max() <= 12


def test_damaged_exif_data_do_not_make_an_image_damaged():
    image = Image.new("RGB", (8, 8), (9, 9, 9))
    content = encoded(image, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\xff\xff\xff")
    assert load_scaled(content, 8, 3).size == (8, 8)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_8_bits_are_refused(mode: str):
    with pytest.raises(ValueError, match="more than 8 bits"):
        load_scaled(encoded(Image.new(mode, (8, 8)), "TIFF"), 8, 3)


def test_colours_of_16_bits_keep_their_upper_8():
    values = np.arange(0, 65536, 1024, np.uint16).reshape(8, 8, 1).repeat(3, axis=2)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    content = b"\x89PNG\r\n\x1a\n"  # by hand: Pillow reads 16 bits, and does not write them
    for name, data in (
        (b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    ):
        checksum = zlib.crc32(name + data)
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)
    assert np.array_equal(np.asarray(load_scaled(content, 8, 3)), values // 256)


def test_a_truncated_file_is_refused(png: Callable[[np.ndarray], bytes]):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    for content in (png(noise), encoded(Image.fromarray(noise), "JPEG")):
        with pytest.raises(OSError, match=r"truncated|cannot identify"):
            load_scaled(content[: len(content) // 2], 8, 1)


def test_a_jpeg_has_nearly_the_same_pixels_and_its_size_is_recorded():
    smooth = np.linspace(0, 250, 60 * 40 * 3).reshape(60, 40, 3).astype(np.uint8)
    source = encoded(Image.fromarray(smooth), "PNG")
    (decoded,) = decode([(row(0), source)], 20, 3, "jpeg", 1)
    (image,) = decoded.images
    assert (image.height, image.width, image.bytes) == (30, 20, len(decoded.content))
    again = np.asarray(Image.open(io.BytesIO(decoded.content))).astype(int)
    assert np.abs(again - np.asarray(load_scaled(source, 20, 3)).astype(int)).max() <= 4


def test_pixels_are_stored_channel_by_channel_with_their_digest(png: Callable[[np.ndarray], bytes]):
    original = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    content = original.transpose(2, 0, 1).tobytes()
    (decoded,) = decode([(row(0), png(original))], 5, 3, "pixels", 1)
    assert decoded.content == content
    assert decoded.images == [(row(0), 5, 7, 105, sha256(content).hexdigest()[:32])]


@pytest.mark.parametrize("workers", [1, 3])
def test_order_is_kept_and_only_a_few_chunks_are_read_ahead(workers: int):
    asked = 0

    def images():
        nonlocal asked
        for asked in range(20 * CHUNK_IMAGES):
            yield row(asked), partial(paint, asked % 256)

    values = []
    for decoded in decode(images(), 2, 1, "pixels", workers):
        values += [decoded.content[4 * i] for i in range(len(decoded.images))]
        assert {image[1:4] for image in decoded.images} == {(2, 2, 4)}
        assert asked < len(values) + (2 * workers + 1) * CHUNK_IMAGES
    assert values == [number % 256 for number in range(20 * CHUNK_IMAGES)]


def test_damaged_images_are_named_and_reading_ends_after_the_twentieth():
    images = ((row(i), fail if i % 5 == 3 else partial(paint, 0)) for i in itertools.count())
    with pytest.raises(DatasetError) as caught:
        list(decode(images, 2, 1, "pixels", 1))
    text = str(caught.value)
    assert all(f"image {5 * i + 3}: cannot decode this image" in text for i in range(20))
    assert text.count("no such letter") == 20


def test_a_damaged_image_is_named_with_the_line_that_lists_it():
    damaged = Row("a.png", "class", (), "train", origin="my.csv, line 7")
    with pytest.raises(DatasetError, match=r"my\.csv, line 7: a\.png: cannot decode"):
        list(decode([(damaged, fail), (row(1), partial(paint, 0))], 2, 1, "pixels", 1))


NO_IMAGES = {
    b"": "the file is empty",
    b"version https://git-lfs.github.com/spec/v1\n": "it is a pointer of Git LFS",
    b"\n<!DOCTYPE html>": "it is a page of HTML or XML",
    b"<svg xmlns=": "it is an SVG drawing",
    b"%PDF-1.4": "it is a PDF",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic": "it is a HEIC file",
    b"\x89PNG\r\n\x1a\n": "Pillow does not know this kind of file, or its beginning is damaged",
    b"\0" * 99: "Pillow does not know this kind of file, or its beginning is damaged",
}


def test_a_file_that_is_no_image_is_refused_with_what_it_is(tmp_path: Path):
    images = []
    for number, content in enumerate(NO_IMAGES):
        (tmp_path / str(number)).write_bytes(content)
        images += [
            (row(number), content),
            (row(number), partial(from_file, f"{tmp_path}/{number}")),
        ]
    with pytest.raises(DatasetError) as caught:
        list(decode(images, 2, 1, "pixels", 1))
    lines = str(caught.value).splitlines()[1:]
    for number, description in enumerate(NO_IMAGES.values()):
        start = f"    image {number}: cannot decode this image: {description}"
        assert [line[: len(start)] for line in lines[2 * number : 2 * number + 2]] == [start] * 2
    assert "BytesIO" not in str(caught.value)


def test_large_files_make_small_chunks():
    asked = []

    def images():
        for number in range(40):
            asked.append(number)
            yield row(number), encoded(Image.new("L", (2, 2)), "PNG") + bytes(CHUNK_BYTES)

    decoding = decode(images(), 2, 1, "pixels", 1)
    assert len(next(decoding).images) == 1
    assert len(asked) < 6
    decoding.close()
