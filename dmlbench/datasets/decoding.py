"""Images' sources -> pixels, by all cores, in order and in constant memory."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from dmlbench.datasets import DatasetError, Row, listed

Source = bytes | Callable[[int], Image.Image]
"""An encoded file, or a function side -> image."""

MODES = {1: "L", 3: "RGB"}
CHUNK = 32
"""Images that a process decodes at a time."""
ENOUGH = 20
"""Damaged images after which no more are looked for."""


class Decoded(NamedTuple):
    """Some images in order."""

    rows: list[Row]
    sizes: list[tuple[int, int]]
    """Height and width of each."""
    pixels: bytes
    """uint8, one image after another, each (channels, height, width)."""
    failed: list[str]
    """What is wrong with the images that could not be decoded; the others are worthless then."""


def decode(
    images: Iterable[tuple[Row, Source]], side: int, channels: int, workers: int | None = None
) -> Iterator[Decoded]:
    """Decode `images`, the short side of each scaled to `side` pixels.

    No more chunks than keep the `workers` processes (default: one a core) busy are in memory.
    Raises DatasetError, naming the images that cannot be decoded, or the first 20.
    """
    failed: list[str] = []
    with contextlib.closing(_chunks(images, side, channels, workers or _cores())) as chunks:
        for decoded in chunks:
            failed += decoded.failed
            if len(failed) >= ENOUGH:
                break
            yield decoded
    if failed:
        raise DatasetError(listed("images cannot be decoded", failed))


def from_bytes(content: bytes, side: int) -> Image.Image:
    """A person's image from its encoded bytes, upright; `partial` of it is a Source."""
    return _upright(io.BytesIO(content))


def from_file(path: str, side: int) -> Image.Image:
    """A person's image from its file, upright; `partial` of it is a Source."""
    with Path(path).open("rb") as file:
        return _upright(file)


def _upright(file: IO[bytes]) -> Image.Image:
    """The image as a viewer shows it: cameras note in the file how it was held."""
    image = Image.open(file)
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"more than 8 bits a pixel (mode {image.mode}), which would be cut off")
    return ImageOps.exif_transpose(image)


def _chunks(
    images: Iterable[tuple[Row, Source]], side: int, channels: int, workers: int
) -> Generator[Decoded]:
    # spawn: the caller may have threads (torch, pyarrow), and a fork with threads may hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
        pending: deque[Future[Decoded]] = deque()
        todo = iter(images)
        while chunk := list(islice(todo, CHUNK)):
            pending.append(pool.submit(_decode_chunk, chunk, side, channels))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _cores() -> int:
    """Cores that this process may use: on a cluster fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _decode_chunk(chunk: list[tuple[Row, Source]], side: int, channels: int) -> Decoded:
    arrays, failed = [], []
    for row, source in chunk:
        try:
            arrays.append(_pixels(source, side, channels))
        except Exception as error:  # a damaged file raises nearly anything in its decoder
            where = f"{row.origin}: {row.path}" if row.origin else row.path
            failed.append(f"{where}: cannot decode this image: {error!r}")
    sizes = [(array.shape[1], array.shape[2]) for array in arrays]
    rows = [row for row, _ in chunk]
    return Decoded(rows, sizes, b"".join(array.tobytes() for array in arrays), failed)


def _pixels(source: Source, side: int, channels: int) -> np.ndarray:
    image = source(side) if callable(source) else Image.open(io.BytesIO(source))
    image = image.convert(MODES[channels])
    scale = side / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)  # antialiased when it shrinks
    array = np.asarray(image).reshape(*reversed(size), channels)
    return array.transpose(2, 0, 1)
