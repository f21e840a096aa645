"""Images' sources -> what a store keeps of them, by all cores, in order and in constant memory.

Every image becomes what a viewer shows: turned as its camera was held (EXIF), in the data set's
channels (a palette's and CMYK's colours as RGB; what is transparent has the colour beneath). Then
its short side is scaled to the store's. More than 8 bits a pixel are refused, as they would be cut.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import signal
import threading
import zipfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dmlbench.datasets import DatasetError, Row, listed, usable_cores
from dmlbench.datasets.archives import DAMAGE

Source = bytes | Callable[[int], Image.Image]
"""An encoded file, or a function side -> image."""

MODES = {1: "L", 3: "RGB"}
LONGEST = 4
"""The long side of an image is at most so many short sides; of a longer one the middle is kept.
(Scaled by its short side, a strip of 1 x 5000 pixels would take the space of 5000 images.)"""
QUALITY = 95
"""Of JPEG stores, with colours at full resolution."""
CHUNK = 32
"""Images that a process decodes at a time, at most; fewer where they are large."""
CHUNK_BYTES = 2 << 20
"""Pixels of a chunk, and encoded files of one, each at most (or one image)."""
ENOUGH = 20
"""Damaged images after which no more are looked for."""
OUT_OF_MEMORY = (MemoryError, BrokenProcessPool)
TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its EXIF orientation."""


class Packed(NamedTuple):
    """One image of a store."""

    row: Row
    height: int
    width: int
    bytes: int
    digest: str
    """First 32 hex digits of the sha256 of its bytes."""


class Decoded(NamedTuple):
    """Some images in order."""

    images: list[Packed]
    content: bytes
    """Their bytes, one image after another."""
    failed: list[str]
    """What is wrong with the images that could not be decoded."""


def decode(
    images: Iterable[tuple[Row, Source]],
    side: int,
    channels: int,
    form: str = "pixels",
    workers: int | None = None,
) -> Iterator[Decoded]:
    """Decode `images`, the short side of each scaled to `side` pixels, to the bytes of `form`:
    "pixels", uint8 (channels, height, width), or "jpeg".

    No more chunks than keep the `workers` processes (default: one a core) busy are in memory.
    Raises DatasetError, naming the images that cannot be decoded, or the first 20; after the first
    of them nothing more is yielded. What fails on this machine, and says nothing of the images, is
    the cause (`__cause__`) of a DatasetError: an OSError with an errno, or OUT_OF_MEMORY.
    """
    failed: list[str] = []
    workers = workers or usable_cores()
    with contextlib.closing(_chunks(images, side, channels, form, workers)) as chunks:
        try:
            for decoded in chunks:
                failed += decoded.failed
                if len(failed) >= ENOUGH:
                    break
                if not failed:
                    yield decoded
        except OUT_OF_MEMORY as error:
            raise DatasetError(
                "a decoding process ran out of memory, or was killed, probably for want of it. "
                "Ask again, with fewer cores (snakemake --cores)."
            ) from error
        except OSError as error:
            raise DatasetError(f"an image cannot be read: {error}.") from error
    if failed:
        raise DatasetError(listed("images cannot be decoded", failed))


def from_file(path: str, side: int) -> Image.Image:
    """The image of a file; `partial` of it is a Source, which another process opens."""
    return Image.open(io.BytesIO(Path(path).read_bytes()))


def from_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Source:
    """The image of a file in a zip; a damaged file is a source that says so where it is decoded,
    with all others that are damaged."""
    try:
        return archive.read(member)
    except DAMAGE as error:
        if getattr(error, "errno", None):
            raise
        return partial(_damaged, str(error))


def _damaged(text: str, side: int) -> Image.Image:
    raise ValueError(text)


def _chunks(
    images: Iterable[tuple[Row, Source]], side: int, channels: int, form: str, workers: int
) -> Generator[Decoded]:
    # spawn: the caller may have threads (torch, pyarrow), and a fork with threads may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
        pending: deque[Future[Decoded]] = deque()
        most = max(1, min(CHUNK, CHUNK_BYTES // (channels * side * side)))
        for chunk in _grouped(images, most):
            pending.append(pool.submit(_decode_chunk, chunk, side, channels, form))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _grouped(images: Iterable[tuple[Row, Source]], most: int) -> Iterator[list[tuple[Row, Source]]]:
    group: list[tuple[Row, Source]] = []
    encoded = 0
    for row, source in images:
        group.append((row, source))
        encoded += len(source) if isinstance(source, bytes) else 0
        if len(group) == most or encoded > CHUNK_BYTES:
            yield group
            group, encoded = [], 0
    if group:
        yield group


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers, and they would wait for work for ever. Of Ctrl-C,
    which goes to all of them, the parent takes care."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _decode_chunk(chunk: list[tuple[Row, Source]], side: int, channels: int, form: str) -> Decoded:
    packed, contents, failed = [], [], []
    for row, source in chunk:
        try:
            image = scaled(source, side, channels)
            content = encoded(image, form)
        except Exception as error:  # a damaged file raises nearly anything in its decoder
            if isinstance(error, MemoryError) or getattr(error, "errno", None):
                raise  # this machine's fault, and not the image's
            where = f"{row.origin}: {row.path}" if row.origin else row.path
            failed.append(f"{where}: cannot decode this image: {error!r}")
        else:
            digest = sha256(content).hexdigest()[:32]
            packed.append(Packed(row, image.height, image.width, len(content), digest))
            contents.append(content)
    return Decoded(packed, b"".join(contents), failed)


def scaled(source: Source, side: int, channels: int) -> Image.Image:
    """The image of a source, upright, gray or RGB, its short side `side` pixels long."""
    image = source(side) if callable(source) else Image.open(io.BytesIO(source))
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"more than 8 bits a pixel (mode {image.mode}), which would be cut off")
    image = _upright(image).convert(MODES[channels])
    short = min(image.size)
    kept = [min(length, LONGEST * short) for length in image.size]
    left, top = ((length - part) // 2 for length, part in zip(image.size, kept, strict=True))
    width, height = (round(part * side / short) for part in kept)
    if (width, height) == image.size:
        return image
    # antialiased when it shrinks
    box = (left, top, left + kept[0], top + kept[1])
    return image.resize((width, height), Image.Resampling.BILINEAR, box)


def _upright(image: Image.Image) -> Image.Image:
    orientation = None
    with contextlib.suppress(Exception):  # a damaged note is no damaged image
        orientation = image.getexif().get(0x0112)
    return image.transpose(TURNED[orientation]) if orientation in TURNED else image


def encoded(image: Image.Image, form: str) -> bytes:
    """What a store of the `form` "pixels" or "jpeg" keeps of an image; see `images.unpacked`."""
    if form == "jpeg":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=QUALITY, subsampling=0)
        return file.getvalue()
    array = np.asarray(image)
    return array.reshape(*array.shape[:2], -1).transpose(2, 0, 1).tobytes()
