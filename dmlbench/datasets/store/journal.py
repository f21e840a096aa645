"""An unfinished packing: finished work survives a kill, and the next packing resumes there."""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from dmlbench.datasets import Row
from dmlbench.datasets.decoding import DecodedChunk, PackedImage
from dmlbench.datasets.store.format import IMAGES_FILE
from dmlbench.utils.errors import DatasetError

COMMIT_SECONDS = 2.0
"""Seconds of work that a killed packing may lose."""


class Journal:
    """The images of a packing so far: their bytes, and a journal with one line for each chunk.

    A line is written after its bytes are on the disk, and it has a checksum. So a torn line, or
    bytes that never arrived, are not trusted. The first line says what is packed; the images of
    another packing are dropped.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any]) -> None:
        """Resume in `folder` if its journal begins with `request`, else start again."""
        folder.mkdir(exist_ok=True)
        self.images_path, self._lines_path = folder / IMAGES_FILE, folder / "journal"
        self.done: set[str] = set()
        """Paths of the images that an earlier packing finished."""
        self.bytes = 0
        """Bytes of all images so far."""
        head = _encode_line(request)
        for path in (self.images_path, self._lines_path):
            path.touch()
        with self._lines_path.open("rb") as lines:
            trusted = len(head) if lines.readline() == head else 0
            for line in lines if trusted else ():
                chunk = _decode_line(line)
                end = self.bytes + sum(image[-2] for image in chunk or ())
                if chunk is None or end > self.images_path.stat().st_size:
                    break
                self.done.update(image[0][0] for image in chunk)
                self.bytes, trusted = end, trusted + len(line)
        os.truncate(self._lines_path, trusted)
        os.truncate(self.images_path, self.bytes)
        self._unsaved_lines: list[bytes] = [] if trusted else [head]
        self._saved = time.monotonic()
        self._images_file = self.images_path.open("ab")
        self._lines_file = self._lines_path.open("ab")

    def add(self, chunk: DecodedChunk) -> None:
        """Add the images of `chunk`, and save if the last save is COMMIT_SECONDS ago."""
        self._images_file.write(chunk.content)
        self.bytes += len(chunk.content)
        try:
            self._unsaved_lines.append(_encode_line(chunk.images))
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

    def close(self) -> None:
        for file in (self._images_file, self._lines_file):
            with contextlib.suppress(OSError):  # a full disk; these bytes were never trusted
                file.close()

    def read(self) -> Iterator[PackedImage]:
        """All images that were saved, in the order of their bytes."""
        with self._lines_path.open("rb") as lines:
            for line in islice(lines, 1, None):
                for (path, name, levels, split, role, _), *rest in _decode_line(line) or ():
                    yield PackedImage(Row(path, name, tuple(levels), split, role), *rest)


def _encode_line(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _decode_line(line: bytes) -> Any | None:
    """The value of a line; None if the line is torn."""
    checksum, _, text = line.partition(b" ")
    complete = line.endswith(b"\n") and checksum == b"%08x" % zlib.crc32(text[:-1])
    return json.loads(text) if complete else None
