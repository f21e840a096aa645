"""An unfinished packing: finished work survives a kill, and the next packing resumes there."""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from hashlib import sha256
from itertools import compress, islice
from pathlib import Path
from typing import Any

from dmlbench.datasets import Row
from dmlbench.datasets.decoding import DecodedChunk, PackedImage, Source, from_file
from dmlbench.datasets.store.format import IMAGES_FILE
from dmlbench.utils.errors import DatasetError

COMMIT_SECONDS = 2.0
"""Seconds of work that a killed packing may lose."""


class Journal:
    """The images of a packing so far: their bytes, and a journal with one line for each chunk.

    A line is written after its bytes are on the disk, and it has a checksum. So a torn line, or
    bytes that never arrived, are not trusted. The first line says how images are packed; those of
    another packing are dropped.

    With each image the journal keeps a mark, a digest of the row and the source. So an image is
    used again if nothing about it changed, although the archive, or the list of the images, is
    another one.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any], code: str) -> None:
        """Resume in `folder` if its journal begins with `request`, else start again.

        Args:
            folder: of the unfinished store.
            request: everything that all packed images depend on.
            code: a digest of the code that draws images which are in no file.
        """
        folder.mkdir(exist_ok=True)
        self.images_path, self._lines_path = folder / IMAGES_FILE, folder / "journal"
        self.done: set[str] = set()
        """Marks of the images that an earlier packing finished and nobody asked for yet."""
        self.bytes = 0
        """Bytes of all images so far."""
        self._code = code
        self._marks: dict[str, str] = {}  # of the images that are being decoded, by path
        self._head = _encode_line(request)
        for path in (self.images_path, self._lines_path):
            path.touch()
        with self._lines_path.open("rb") as lines:
            trusted = len(self._head) if lines.readline() == self._head else 0
            for line in lines if trusted else ():
                chunk = _decode_line(line)
                end = self.bytes + sum(image[-3] for image in chunk or ())
                if chunk is None or end > self.images_path.stat().st_size:
                    break
                self.done.update(image[-1] for image in chunk)
                self.bytes, trusted = end, trusted + len(line)
        os.truncate(self._lines_path, trusted)
        os.truncate(self.images_path, self.bytes)
        self._unsaved_lines: list[bytes] = [] if trusted else [self._head]
        self._saved = time.monotonic()
        self._images_file = self.images_path.open("ab")
        self._lines_file = self._lines_path.open("ab")

    def holds(self, row: Row, source: Source) -> bool:
        """Whether an earlier packing finished this image. If not, `add` expects it."""
        mark = _mark(row, source, self._code)
        if mark in self.done:
            self.done.remove(mark)  # so a second image of this path is found as a duplicate
            return True
        self._marks[row.path] = mark
        return False

    def add(self, chunk: DecodedChunk) -> None:
        """Add the images of `chunk`, and save if the last save is COMMIT_SECONDS ago."""
        if not chunk.images:
            return
        self._images_file.write(chunk.content)
        self.bytes += len(chunk.content)
        images = [(*image, self._marks.pop(image.row.path, "")) for image in chunk.images]
        try:
            self._unsaved_lines.append(_encode_line(images))
        except UnicodeEncodeError:
            paths = ", ".join(ascii(image.row.path) for image in chunk.images)
            raise DatasetError(f"a path or class is not UTF-8, among those of {paths}") from None
        if time.monotonic() - self._saved >= COMMIT_SECONDS:
            self.save()

    def save(self) -> None:
        """Make sure that everything is on the disk: first the images, then their lines."""
        lines = b"".join(self._unsaved_lines)
        for file, content in ((self._images_file, b""), (self._lines_file, lines)):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._unsaved_lines.clear()
        self._saved = time.monotonic()

    def drop_unused(self) -> None:
        """Remove the images that nobody asked for; this packing adds no more.

        A kill in between loses the packing, and leaves nothing that is wrong.
        """
        if not self.done:
            return
        images_new, lines_new = (
            path.with_name(f"{path.name}.new") for path in (self.images_path, self._lines_path)
        )
        with (
            self.images_path.open("rb") as images,
            images_new.open("wb") as images_file,
            lines_new.open("wb") as lines_file,
        ):
            lines_file.write(self._head)
            for chunk in self._chunks():
                contents = [images.read(image[-3]) for image in chunk]
                kept = [image[-1] not in self.done for image in chunk]
                images_file.writelines(compress(contents, kept))
                if any(kept):
                    lines_file.write(_encode_line([*compress(chunk, kept)]))
        self._lines_path.unlink()  # no time at which the lines describe other bytes
        images_new.replace(self.images_path)
        lines_new.replace(self._lines_path)
        self.done.clear()

    def close(self) -> None:
        for file in (self._images_file, self._lines_file):
            with contextlib.suppress(OSError):  # a full disk; these bytes were never trusted
                file.close()

    def read(self) -> Iterator[PackedImage]:
        """All images that were saved, in the order of their bytes."""
        for chunk in self._chunks():
            for (path, name, levels, split, role, _), *rest, _mark in chunk:
                yield PackedImage(Row(path, name, tuple(levels), split, role), *rest)

    def _chunks(self) -> Iterator[list[Any]]:
        """The lines below the first one."""
        with self._lines_path.open("rb") as lines:
            for line in islice(lines, 1, None):
                yield _decode_line(line) or []


def _mark(row: Row, source: Source, code: str) -> str:
    """A digest of the row and of what its image is made from."""
    if isinstance(source, bytes):
        content = sha256(source).hexdigest()
    elif isinstance(source, partial) and source.func is from_file:
        stat = Path(source.args[0]).stat()
        content = f"{stat.st_size} {stat.st_mtime_ns}"
    else:
        content = code
    text = json.dumps([*row._replace(origin=""), content])
    return sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def _encode_line(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _decode_line(line: bytes) -> Any | None:
    """The value of a line; None if the line is torn."""
    checksum, _, text = line.partition(b" ")
    complete = line.endswith(b"\n") and checksum == b"%08x" % zlib.crc32(text[:-1])
    return json.loads(text) if complete else None
