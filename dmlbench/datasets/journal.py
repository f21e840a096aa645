"""A packing that is not finished: what is done survives a kill, and the next one goes on there."""

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

from dmlbench.datasets import DatasetError, Row
from dmlbench.datasets.decoding import Decoded, Packed

COMMIT_SECONDS = 2.0
"""Work that a killed packing may lose."""


class Journal:
    """The images of a packing in `folder`: their bytes in images.bin, and a journal of them, a line
    a chunk, the first line saying what is packed.

    A line is written after its bytes are on the disk, and has a checksum, so neither a torn line
    nor bytes that never arrived are trusted. What another packing left is dropped.
    """

    def __init__(self, folder: Path, what: Mapping[str, Any]) -> None:
        folder.mkdir(exist_ok=True)
        self.images, self._lines = folder / "images.bin", folder / "journal"
        self.done: set[str] = set()
        """Paths of the images that are there, when this begins."""
        self.bytes = 0
        head = _line(what)
        for path in (self.images, self._lines):
            path.touch()
        with self._lines.open("rb") as lines:
            trusted = len(head) if lines.readline() == head else 0
            for line in lines if trusted else ():
                chunk = _content(line)
                end = self.bytes + sum(image[-2] for image in chunk or ())
                if chunk is None or end > self.images.stat().st_size:
                    break
                self.done.update(image[0][0] for image in chunk)
                self.bytes, trusted = end, trusted + len(line)
        os.truncate(self._lines, trusted)
        os.truncate(self.images, self.bytes)
        self._pending: list[bytes] = [] if trusted else [head]
        self._saved = time.monotonic()
        self._image_file, self._line_file = self.images.open("ab"), self._lines.open("ab")

    def add(self, decoded: Decoded) -> None:
        self._image_file.write(decoded.content)
        self.bytes += len(decoded.content)
        try:
            self._pending.append(_line(decoded.images))
        except UnicodeEncodeError:
            paths = ", ".join(ascii(image.row.path) for image in decoded.images)
            raise DatasetError(f"a path or class is not UTF-8, among those of {paths}") from None
        if time.monotonic() - self._saved >= COMMIT_SECONDS:
            self.save()

    def save(self) -> None:
        """Make sure that all that was added is on the disk."""
        for file, content in ((self._image_file, b""), (self._line_file, b"".join(self._pending))):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._pending.clear()
        self._saved = time.monotonic()

    def close(self) -> None:
        for file in (self._image_file, self._line_file):
            with contextlib.suppress(OSError):  # of bytes that never counted, on a full disk
                file.close()

    def read(self) -> Iterator[Packed]:
        """All images that were saved, in the order of their bytes."""
        with self._lines.open("rb") as lines:
            for line in islice(lines, 1, None):
                for (path, name, levels, split, role, _), *rest in _content(line) or ():
                    yield Packed(Row(path, name, tuple(levels), split, role), *rest)


def _line(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _content(line: bytes) -> Any | None:
    """What a line says, None if it is torn."""
    checksum, _, text = line.partition(b" ")
    whole = line.endswith(b"\n") and checksum == b"%08x" % zlib.crc32(text[:-1])
    return json.loads(text) if whole else None
