"""A file that is not whole yet: what of it is on the disk, and what is missing."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections import deque
from pathlib import Path
from typing import NamedTuple

from dmlbench.datasets import DatasetError
from dmlbench.datasets.bar import size
from dmlbench.files import read_json_if_whole, write_json


class Source(NamedTuple):
    """What a server says of a file."""

    url: str
    size: int | None
    """Bytes; None where it does not say."""
    validator: str | None
    """ETag or date of change."""
    ranges: bool
    """Whether it gives parts of the file; if not, there is nothing to go on from."""


class Part:
    """The bytes of a file on their way, in PATH.part. One process has it at a time; several threads
    write to it at once.

    Args:
        sure: a checksum will be compared, so that the bytes of several mirrors may be mixed.
    """

    def __init__(self, path: Path, *, sure: bool) -> None:
        self.name, self.sure = path.name, sure
        self.path = path.with_name(f"{path.name}.part")
        self._note = path.with_name(f"{path.name}.part.json")
        self._lock = threading.Lock()
        self._file: int | None = None
        self._waiting: deque[list[int]] = deque()
        self._begun: Source | None = None  # by this process
        self.mixed = False
        """Whether some of it is of another source, or of an earlier process."""
        self.done = 0
        self.source: Source | None = None
        self.missing: list[list[int]] = []
        """[first byte, last byte + 1] of what is not there."""
        self._read_note()

    @property
    def size(self) -> int | None:
        return self.source.size if self.source else None

    @property
    def whole(self) -> bool:
        return all(start >= stop for start, stop in self.missing)

    def open(self, source: Source, piece: int) -> None:
        """Go on with what is there where that is of the same file, else begin anew; in pieces of
        so many bytes. Raises DatasetError if the disk is too small."""
        if self._goes_on(source):
            self.mixed = self.mixed or source != self._begun
        else:
            self.discard()
            self.mixed, self._begun = False, source
            self.missing = [[0, sys.maxsize if source.size is None else source.size]]
        self.source = source
        self._look_for_space()
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            if source.ranges:
                os.ftruncate(self._file, source.size or 0)
        except OSError as error:
            raise self._unwritable(error) from None
        if source.ranges:
            self.missing = [
                [at, min(at + piece, stop)]
                for start, stop in self.missing
                for at in range(start, stop, piece)
            ]
        self._waiting = deque(self.missing)
        self.save()

    def take(self) -> list[int] | None:
        """A piece for one thread to fetch; its first number moves on as it comes."""
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def put_back(self, piece: list[int]) -> None:
        self._waiting.appendleft(piece)

    def write(self, piece: list[int], data: bytes) -> bool:
        """Put `data` where `piece` begins; what is beyond it is cut off. Whether it wants more."""
        with self._lock:
            if self._file is None:  # closed, while this thread still waited for a server
                return False
            view = memoryview(data)[: piece[1] - piece[0]]
            while view:
                try:
                    count = os.pwrite(self._file, view, piece[0])
                except OSError as error:
                    raise self._unwritable(error) from None
                piece[0] += count
                self.done += count
                view = view[count:]
        return piece[0] < piece[1]

    def save(self) -> None:
        """Note what is missing, for one who comes later."""
        if self._file is None or self.source is None:
            return
        with self._lock:
            missing = [[start, stop] for start, stop in self.missing if start < stop]
        try:
            os.fsync(self._file)  # what is noted as there is there, even if the machine dies
            if self.source.ranges:
                write_json(self._note, {**self.source._asdict(), "missing": missing})
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Nothing is written after this, even by a thread that is still there."""
        try:
            self.save()
        finally:
            with self._lock:
                file, self._file = self._file, None
            if file is not None:
                os.close(file)

    def become(self, path: Path) -> None:
        """Take the name of the whole file."""
        self.path.replace(path)
        self._note.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        self._note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self.source, self.missing, self.done = None, [], 0

    def leave(self) -> None:
        """Remove what nobody can go on with."""
        if self.source is None or not self.source.ranges:
            self.discard()

    def _read_note(self) -> None:
        try:
            note = dict(read_json_if_whole(self._note) or {})
            self.missing = [[int(start), int(stop)] for start, stop in note.pop("missing")]
            self.source = Source(**note)
            if self.path.stat().st_size != self.source.size:
                raise ValueError("of another file")
            self.done = self.source.size - sum(stop - start for start, stop in self.missing)
        except (OSError, ValueError, TypeError, KeyError):
            self.source, self.missing, self.done = None, [], 0

    def _goes_on(self, source: Source) -> bool:
        old = self.source
        if old is None or not (old.ranges and source.ranges) or old.size != source.size:
            return False
        if old.url != source.url:
            return self.sure
        return old.validator == source.validator and (self.sure or source.validator is not None)

    def _unwritable(self, error: OSError) -> DatasetError:
        return DatasetError(f"{self.path}: cannot be written: {error.strerror}")

    def _look_for_space(self) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if self.size is not None and self.size - self.done > free:
            raise DatasetError(
                f"{self.path.parent}: {self.name} needs {size(self.size - self.done)} more, and "
                f"{size(free)} are free. DMLBENCH_DATA may name a folder on a larger disk."
            )
