"""A file that is not complete yet: which bytes are on the disk, and which are missing."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections import deque
from pathlib import Path
from typing import NamedTuple

from dmlbench.utils.errors import DatasetError
from dmlbench.utils.files import read_json_if_whole, write_json
from dmlbench.utils.text import format_bytes


class RemoteFile(NamedTuple):
    """A file as a server describes it."""

    url: str
    size: int | None
    """Bytes; None if the server does not say."""
    validator: str | None
    """ETag or date of change."""
    ranges: bool
    """Whether the server gives parts of the file. If not, no later attempt can resume."""


class PartialFile:
    """The bytes of a download so far, in PATH.part.

    One process uses it at a time; several threads write to it at once. PATH.part.json says what is
    missing.

    Args:
        path: where the complete file will be.
        has_checksum: a checksum will be compared, so the bytes of several mirrors may be mixed.
    """

    def __init__(self, path: Path, *, has_checksum: bool) -> None:
        self.name, self.has_checksum = path.name, has_checksum
        self.path = path.with_name(f"{path.name}.part")
        self._note_path = path.with_name(f"{path.name}.part.json")
        self._lock = threading.Lock()
        self._file: int | None = None
        self._pieces: deque[list[int]] = deque()
        self._first_source: RemoteFile | None = None  # of this process
        self.mixed = False
        """Whether some bytes come from another source, or from an earlier process."""
        self.bytes_done = 0
        self.source: RemoteFile | None = None
        self.missing: list[list[int]] = []
        """[first byte, last byte + 1] of each part that is missing."""
        self._read_note()

    @property
    def size(self) -> int | None:
        return self.source.size if self.source else None

    @property
    def complete(self) -> bool:
        return all(start >= stop for start, stop in self.missing)

    def open(self, source: RemoteFile, piece_bytes: int) -> None:
        """Open the file for writing: resume if `source` is the same file, else start again.

        Args:
            source: the file that will be fetched.
            piece_bytes: size of the pieces that `take_piece` gives.

        Raises:
            DatasetError: the disk is too small, or the file cannot be written.
        """
        if self._can_resume(source):
            self.mixed = self.mixed or source != self._first_source
        else:
            self.discard()
            self.mixed, self._first_source = False, source
            self.missing = [[0, sys.maxsize if source.size is None else source.size]]
        self.source = source
        self._check_free_space()
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            if source.ranges:
                os.ftruncate(self._file, source.size or 0)
        except OSError as error:
            raise self._write_error(error) from None
        if source.ranges:
            self.missing = [
                [first, min(first + piece_bytes, stop)]
                for start, stop in self.missing
                for first in range(start, stop, piece_bytes)
            ]
        self._pieces = deque(self.missing)
        self.save()

    def take_piece(self) -> list[int] | None:
        """A piece for one thread to fetch; `write` moves its first number forward."""
        try:
            return self._pieces.popleft()
        except IndexError:
            return None

    def put_back(self, piece: list[int]) -> None:
        """Leave the rest of `piece` to another thread."""
        self._pieces.appendleft(piece)

    def write(self, piece: list[int], data: bytes) -> bool:
        """Write `data` at the start of `piece`, and drop what goes beyond its end.

        Returns:
            Whether bytes of the piece are still missing.
        """
        with self._lock:
            if self._file is None:  # closed while this thread was waiting for a server
                return False
            view = memoryview(data)[: piece[1] - piece[0]]
            while view:
                try:
                    count = os.pwrite(self._file, view, piece[0])
                except OSError as error:
                    raise self._write_error(error) from None
                piece[0] += count
                self.bytes_done += count
                view = view[count:]
        return piece[0] < piece[1]

    def save(self) -> None:
        """Note what is missing, so that a later process can resume."""
        if self._file is None or self.source is None:
            return
        with self._lock:
            missing = [[start, stop] for start, stop in self.missing if start < stop]
        try:
            os.fsync(self._file)  # bytes noted as present must survive a crash of the machine
            if self.source.ranges:
                write_json(self._note_path, {**self.source._asdict(), "missing": missing})
        except OSError as error:
            raise self._write_error(error) from None

    def close(self) -> None:
        """Save and close. Nothing is written after this, even by a thread that still runs."""
        try:
            self.save()
        finally:
            with self._lock:
                file, self._file = self._file, None
            if file is not None:
                os.close(file)

    def rename_to(self, path: Path) -> None:
        """Give the complete file its name."""
        self.path.replace(path)
        self._note_path.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        """Remove all bytes."""
        self._note_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self._forget()

    def discard_if_useless(self) -> None:
        """Remove the bytes if no later attempt can resume with them."""
        if self.source is None or not self.source.ranges:
            self.discard()

    def _forget(self) -> None:
        self.source, self.missing, self.bytes_done = None, [], 0

    def _read_note(self) -> None:
        try:
            note = dict(read_json_if_whole(self._note_path) or {})
            self.missing = [[int(start), int(stop)] for start, stop in note.pop("missing")]
            self.source = RemoteFile(**note)
            if self.path.stat().st_size != self.source.size:
                raise ValueError("the note is about another file")
            self.bytes_done = self.source.size - sum(stop - start for start, stop in self.missing)
        except (OSError, ValueError, TypeError, KeyError):
            self._forget()

    def _can_resume(self, source: RemoteFile) -> bool:
        old = self.source
        if old is None or not (old.ranges and source.ranges) or old.size != source.size:
            return False
        if old.url != source.url:
            return self.has_checksum
        same_version = old.validator == source.validator
        return same_version and (self.has_checksum or source.validator is not None)

    def _write_error(self, error: OSError) -> DatasetError:
        return DatasetError(f"{self.path}: cannot be written: {error.strerror}")

    def _check_free_space(self) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if self.size is not None and self.size - self.bytes_done > free:
            needed = format_bytes(self.size - self.bytes_done)
            raise DatasetError(
                f"{self.path.parent}: {self.name} needs {needed} more, and {format_bytes(free)} "
                f"are free. DMLBENCH_DATA may name a folder on a larger disk."
            )
