"""Decode the images of a data set with all cores, in order and in constant memory.

Every image becomes what a viewer shows: it is turned upright (EXIF) and converted to the data set's
channels. Palette and CMYK images become RGB; a transparent pixel keeps the colour beneath. Then its
short side is scaled to that of the store. Gray images with more than 8 bits are refused, because
Pillow would clip their values. Of colours with 16 bits, the upper 8 are kept, as viewers do.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import zipfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from dmlbench.datasets import Row
from dmlbench.datasets.archives.reading import READ_ERRORS
from dmlbench.datasets.store.images import image_digest
from dmlbench.utils.cores import usable_cores
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.reading import read_bytes
from dmlbench.utils.text import error_reason, listed
from dmlbench.utils.workers import exit_with_parent

Source = bytes | Callable[[int], Image.Image]
"""An encoded image file, or a picklable function from the side in pixels to an image."""

MODES = {1: "L", 3: "RGB"}
"""Pillow's mode by the number of channels."""
MAX_ASPECT_RATIO = 4
"""Longest allowed ratio of the long side to the short one; of a longer image the middle is kept.
(Scaled by its short side, a strip of 1 x 5000 pixels would take the space of 5000 images.)"""
JPEG_QUALITY = 95
"""Quality of the images of a JPEG store; their colours keep the full resolution."""
CHUNK_IMAGES = 32
"""Most images that a process decodes at a time; fewer if they are large."""
CHUNK_BYTES = 2 << 20
"""Most bytes of the pixels, and of the encoded files, of a chunk; a larger image is alone in it."""
MAX_BYTES = 2_000_000_000
"""Of the file of an image."""
MAX_FAILURES = 20
"""After this many damaged images the search for more ends."""
OUT_OF_MEMORY = (MemoryError, BrokenProcessPool)
NO_IMAGES = {
    b"version https://git-lfs": "it is a pointer of Git LFS and not the file: run `git lfs pull`",
    b"<svg": "it is an SVG drawing, which has no pixels",
    b"<": "it is a page of HTML or XML, as a failed download leaves it",
    b"%PDF": "it is a PDF",
}
"""What else is found under the names of images, by its first bytes."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that makes an image upright, by its EXIF orientation."""


class PackedImage(NamedTuple):
    """One image of a store, without its bytes."""

    row: Row
    height: int
    width: int
    bytes: int
    """Length of its bytes."""
    digest: str
    """`store.images.image_digest` of its bytes."""


class DecodedChunk(NamedTuple):
    """Some consecutive images."""

    images: list[PackedImage]
    content: bytes
    """The bytes of the images, one after another."""
    failures: list[str]
    """A line for each image that could not be decoded."""


def decode(
    images: Iterable[tuple[Row, Source]],
    side: int,
    channels: int,
    form: str = "pixels",
    workers: int | None = None,
) -> Iterator[DecodedChunk]:
    """Decode `images`, in their order.

    Only as many chunks are in memory as keep the processes busy.

    Args:
        images: row and source of each image.
        side: length in pixels to which the short side of each image is scaled.
        channels: 1 (gray) or 3 (RGB).
        form: "pixels", uint8 (channels, height, width), or "jpeg".
        workers: number of processes; None: one for each usable core.

    Raises:
        DatasetError: at the end, if images cannot be decoded; the text names them. The search ends
            at the 20th of them. Or at once, if this machine is the cause and not an image.
    """
    failures: list[str] = []
    workers = workers or usable_cores()
    with contextlib.closing(_decode_chunks(images, side, channels, form, workers)) as chunks:
        try:
            for chunk in chunks:
                failures += chunk.failures
                yield chunk
                if len(failures) >= MAX_FAILURES:
                    break
        except OUT_OF_MEMORY as error:
            raise DatasetError(
                "a decoding process ran out of memory, or was killed, probably because memory was "
                "short. Run the command again with fewer cores (snakemake --cores)."
            ) from error
        except OSError as error:
            raise DatasetError(f"an image cannot be read: {error}.") from error
    if failures:
        raise DatasetError(listed("images cannot be decoded", failures))


def from_file(path: str, side: int) -> Image.Image:
    """The image in the file `path`; `partial(from_file, path)` is a Source."""
    return _open(read_bytes(Path(path), MAX_BYTES))


def from_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Source:
    """The image in a file of a zip.

    A damaged file gives a Source that fails when it is decoded, so that all damaged files are named
    together.
    """
    try:
        return archive.read(member)
    except READ_ERRORS as error:
        if getattr(error, "errno", None):
            raise
        return partial(_fail, str(error))


def _fail(text: str, side: int) -> Image.Image:
    raise ValueError(text)


def _decode_chunks(
    images: Iterable[tuple[Row, Source]], side: int, channels: int, form: str, workers: int
) -> Generator[DecodedChunk]:
    # spawn: the caller may have threads (torch, pyarrow), and a fork with threads may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=exit_with_parent) as pool:
        pending: deque[Future[DecodedChunk]] = deque()
        chunk_images = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // (channels * side * side)))
        for chunk in _into_chunks(images, chunk_images):
            pending.append(pool.submit(_decode_chunk, chunk, side, channels, form))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _into_chunks(
    images: Iterable[tuple[Row, Source]], chunk_images: int
) -> Iterator[list[tuple[Row, Source]]]:
    chunk: list[tuple[Row, Source]] = []
    file_bytes = 0
    for row, source in images:
        chunk.append((row, source))
        file_bytes += len(source) if isinstance(source, bytes) else 0
        if len(chunk) == chunk_images or file_bytes > CHUNK_BYTES:
            yield chunk
            chunk, file_bytes = [], 0
    if chunk:
        yield chunk


def _decode_chunk(
    chunk: list[tuple[Row, Source]], side: int, channels: int, form: str
) -> DecodedChunk:
    packed, contents, failures = [], [], []
    for row, source in chunk:
        try:
            image = load_scaled(source, side, channels)
            content = pack_image(image, form)
        except Exception as error:  # decoders raise nearly anything for a damaged file
            if isinstance(error, MemoryError) or getattr(error, "errno", None):
                raise  # this machine is at fault, not the image
            where = f"{row.origin}: {row.path}" if row.origin else row.path
            failures.append(f"{where}: cannot decode this image: {error_reason(error)}")
        else:
            digest = image_digest(content)
            packed.append(PackedImage(row, image.height, image.width, len(content), digest))
            contents.append(content)
    return DecodedChunk(packed, b"".join(contents), failures)


def load_scaled(source: Source, side: int, channels: int) -> Image.Image:
    """The image of `source`: upright, gray or RGB, its short side scaled to `side` pixels.

    Raises:
        ValueError: it is gray and has more than 8 bits.
        OSError: Pillow cannot read it.
    """
    image = source(side) if callable(source) else _open(source)
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"more than 8 bits a pixel (mode {image.mode}), which would be cut off")
    image = _turn_upright(image).convert(MODES[channels])
    short = min(image.size)
    kept = [min(length, MAX_ASPECT_RATIO * short) for length in image.size]
    left, top = ((length - part) // 2 for length, part in zip(image.size, kept, strict=True))
    width, height = (round(part * side / short) for part in kept)
    if (width, height) == image.size:
        return image
    # antialiased when it shrinks
    box = (left, top, left + kept[0], top + kept[1])
    return image.resize((width, height), Image.Resampling.BILINEAR, box)


def _open(content: bytes) -> Image.Image:
    """The image in the file `content`, not decoded yet."""
    try:
        return Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        # Pillow's own text names a BytesIO and its address
        raise UnidentifiedImageError(_describe_no_image(content)) from None


def _describe_no_image(content: bytes) -> str:
    """What a file without an image is, as far as its first bytes tell."""
    if not content:
        return "the file is empty"
    for start, description in NO_IMAGES.items():
        if content.lstrip().startswith(start):
            return description
    if content[4:12] in (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1"):
        return "it is a HEIC file, which Pillow does not read; convert it to JPEG or PNG"
    return "Pillow does not know this kind of file, or its beginning is damaged"


def _turn_upright(image: Image.Image) -> Image.Image:
    image.load()  # Pillow turns a TIFF when it loads it, and deletes its orientation then
    orientation = None
    with contextlib.suppress(Exception):  # damaged EXIF data do not damage the image
        orientation = image.getexif().get(0x0112)
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def pack_image(image: Image.Image, form: str) -> bytes:
    """The bytes that a store of `form` "pixels" or "jpeg" keeps of `image`.

    `store.images.unpack_image` is the inverse.
    """
    if form == "jpeg":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return file.getvalue()
    array = np.asarray(image)
    return array.reshape(*array.shape[:2], -1).transpose(2, 0, 1).tobytes()
