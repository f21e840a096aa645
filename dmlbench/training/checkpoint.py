"""The state of an unfinished training on disk."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from io import BufferedWriter
from pathlib import Path
from typing import IO, Any, cast

import torch

from dmlbench.training.run_state import CHECKPOINT, PREVIOUS_CHECKPOINT
from dmlbench.training.scratch import copy_file, staged_checkpoint
from dmlbench.training.time_limit import Stopped, timings
from dmlbench.utils.errors import DiskError
from dmlbench.utils.files import replacing

MAKES_NUMBERS = False
MAX_TIME_SHARE = 0.005
"""The share of the time that may be spent on saving."""
MIN_INTERVAL = 1.0
"""Seconds between two saves, at least."""
DIGEST_BYTES = sha256().digest_size
CHUNK_BYTES = 2**20


class Checkpoint:
    """A file in the state folder of a run, under the key of the run, and the one before it.

    A file ends with the digest of its bytes: `torch.load` would take damaged ones.

    Saving costs at most half a percent of the time, however large the model is: after a save that
    took one second, the next one comes 200 seconds later. If the node has scratch space, the
    training only waits until the file is there; a thread copies it to the state folder.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.path = folder / CHECKPOINT
        self.previous = folder / PREVIOUS_CHECKPOINT
        self.key = key
        self.staged = staged_checkpoint(folder)
        """Where it is written first, if the node has scratch space."""
        self._next_save = time.monotonic() + MIN_INTERVAL

    def load(self) -> dict[str, Any] | None:
        """The state that was saved last under this key; None if there is none.

        A checkpoint that is damaged or has another key is removed.

        Raises:
            DiskError: there was no room for the last one that this process saved.
        """
        finish_copying()
        if self.staged:
            self.staged.unlink(missing_ok=True)  # of a training that was killed
        for path in (self.path, self.previous):
            if not path.is_file():
                continue
            try:
                _check(path)
                state = torch.load(path, map_location="cpu", weights_only=True)
                if state["key"] == self.key:
                    return state
            except Exception as error:  # torn bytes fail in every way that a reader can
                print(f"{path}: damaged, and not used: {error}", flush=True)
            path.unlink()
        return None

    def should_save(self) -> bool:
        """Whether enough time has passed since the last save, and that one has arrived."""
        return time.monotonic() >= self._next_save and not is_copying()

    def save(self, state: dict[str, Any]) -> None:
        """Make `state` the last checkpoint.

        With scratch space the file may still be on its way: see `finish_copying`.

        Raises:
            DiskError: there is no room for it, or there was none for the one before.
        """
        started = time.monotonic()
        finish_copying()
        content = {"key": self.key, **state}
        if not self._stage(content):
            self._replace(partial(_write, content))
            timings.save = time.monotonic() - started
        seconds = time.monotonic() - started
        timings.saving += seconds
        self._next_save = time.monotonic() + max(MIN_INTERVAL, seconds / MAX_TIME_SHARE)

    def _replace(self, write: Callable[[Path], None]) -> None:
        """Let `write` make the next checkpoint; the last one becomes the previous one."""
        try:
            self._replace_once(write)
        except DiskError:
            if not self.previous.is_file():
                raise
            self.previous.unlink()  # its room may be enough
            self._replace_once(write)

    def _replace_once(self, write: Callable[[Path], None]) -> None:
        with replacing(self.path) as temporary:
            write(temporary)
            if self.path.is_file():
                self.path.replace(self.previous)

    def _stage(self, content: dict[str, Any]) -> bool:
        """Whether the checkpoint is in the scratch space, and on its way to the state folder."""
        global _copy
        if not self.staged:
            return False
        staged, started = self.staged, time.monotonic()
        try:
            _write(content, staged)
        except Exception as error:  # torch hides the system's error
            print(f"{staged}: saving without scratch space: {error}", flush=True)
            staged.unlink(missing_ok=True)
            self.staged = None
            return False

        def copy() -> None:
            self._replace(partial(copy_file, staged))
            staged.unlink()
            timings.save = time.monotonic() - started

        _copy = _copier.submit(copy)
        return True


_copier = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
_copy: Future[None] | None = None
"""The copy of the last checkpoint, from scratch space to the state folder."""


def is_copying() -> bool:
    """Whether a checkpoint is on its way to the state folder."""
    return _copy is not None and not _copy.done()


def finish_copying() -> None:
    """Wait until the last checkpoint is in the state folder, where other nodes find it.

    Raises:
        DiskError: there is no room for it.
    """
    global _copy
    copy, _copy = _copy, None
    if copy:
        copy.result()


@contextlib.contextmanager
def finishing_copies() -> Iterator[None]:
    """Wait, when a training ends, until its last checkpoint is in the state folder.

    Raises:
        DiskError: the training was stopped, and there is no room for its checkpoint.
    """
    try:
        yield
    except Stopped:
        finish_copying()
        raise
    finally:
        with contextlib.suppress(OSError):  # the training itself has succeeded, or says more
            finish_copying()


class _HashingWriter:
    """A file for `torch.save` that knows the digest of what was written."""

    def __init__(self, file: BufferedWriter) -> None:
        self.file = file
        self.digest = sha256()

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self.file.write(content)

    def flush(self) -> None:
        self.file.flush()


def _write(content: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        writer = _HashingWriter(file)
        torch.save(content, cast(IO[bytes], writer))
        file.write(writer.digest.digest())
        file.flush()
        os.fsync(file.fileno())


def _check(path: Path) -> None:
    """Make sure that the file ends with the digest of its other bytes.

    Raises:
        ValueError: it has another one.
    """
    digest, left = sha256(), path.stat().st_size - DIGEST_BYTES
    with path.open("rb") as file:
        while left > 0 and (content := file.read(min(left, CHUNK_BYTES))):
            digest.update(content)
            left -= len(content)
        if file.read() != digest.digest():
            raise ValueError("its bytes are not those that were written")
