"""Images of every format and orientation become what `ImageOps.exif_transpose` gives."""

import io
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageOps

from dmlbench.datasets import Row
from dmlbench.datasets.decoding import decode, from_file, load_scaled
from dmlbench.datasets.store.images import unpack_image

ORIENTATION = 0x0112
SIZE = (24, 16)
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{}"/></rdf:RDF></x:xmpmeta>'
)
FORMATS = {
    "JPEG": {},
    "JPEG, progressive": {"progressive": True},
    "JPEG, XMP": {},
    "MPO": {"save_all": True},
    "PNG": {},
    "TIFF": {},
    "TIFF, LZW": {"compression": "tiff_lzw"},
    "TIFF, JPEG": {"compression": "jpeg"},
    "TIFF, big": {"big_tiff": True},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 90},
}


def scene():
    """An image without any symmetry."""
    pixels = np.add.outer(np.arange(SIZE[1]) * 9, np.arange(SIZE[0]) * 4)
    return Image.fromarray(np.stack([pixels, pixels[::-1], 40 + pixels // 2], 2).astype(np.uint8))


def encode(kind, orientation):
    if kind == "AVIF" and "AVIF" not in Image.registered_extensions().values():
        pytest.skip("this Pillow has no AVIF")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    given = {"exif": exif, **FORMATS[kind]}
    if kind == "JPEG, XMP":
        given = {"xmp": XMP.format(orientation).encode()}
    if kind == "MPO":
        given["append_images"] = [Image.new("RGB", SIZE)]
    file = io.BytesIO()
    scene().save(file, kind.partition(",")[0], **given)
    return file.getvalue()


def reference(content):
    return ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_is_upright_whatever_its_format(tmp_path, kind, orientation):
    content = encode(kind, orientation)
    expected = reference(content)
    assert expected.size == (SIZE if orientation < 5 else SIZE[::-1])
    (tmp_path / "image").write_bytes(content)
    for source in (content, partial(from_file, str(tmp_path / "image"))):
        image = load_scaled(source, min(SIZE), 3)
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))
        smaller = expected.resize(
            [length // 2 for length in expected.size], Image.Resampling.BILINEAR
        )
        image = load_scaled(source, min(SIZE) // 2, 3)
        np.testing.assert_array_equal(np.asarray(image), np.asarray(smaller))


@pytest.mark.parametrize("form", ["pixels", "jpeg"])
def test_packed_images_are_upright_in_both_forms_of_a_store(decode_in_threads, form):
    contents = [encode(kind, orientation) for kind in FORMATS for orientation in (3, 6)]
    rows = [Row(str(number), "class", (), "train") for number in range(len(contents))]
    images = []
    for chunk in decode(zip(rows, contents, strict=True), min(SIZE), 3, form):
        packed, start = np.frombuffer(chunk.content, np.uint8), 0
        for image in chunk.images:
            shape = 3, image.height, image.width
            images.append(unpack_image(packed[start : start + image.bytes], form, shape))
            start += image.bytes
    for image, content in zip(images, contents, strict=True):
        expected = np.asarray(reference(content)).transpose(2, 0, 1).astype(int)
        assert np.abs(image - expected).max() <= (0 if form == "pixels" else 12)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_changes_nothing(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = io.BytesIO()
    scene().save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(load_scaled(file.getvalue(), min(SIZE), 3), scene())
