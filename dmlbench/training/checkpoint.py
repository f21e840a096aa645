"""The state of an unfinished training on disk."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from dmlbench.utils.files import replacing

MAKES_NUMBERS = False
MAX_TIME_SHARE = 0.005
"""The share of the time that may be spent on saving."""
MIN_INTERVAL = 1.0
"""Seconds between two saves, at least."""


class Checkpoint:
    """A file in the state folder of a run, under the key of the run.

    Saving costs at most half a percent of the time, however large the model is: after a save that
    took one second, the next one comes 200 seconds later.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / "checkpoint.pt"
        self.key = key
        self._next_save = time.monotonic() + MIN_INTERVAL

    def load(self) -> dict[str, Any] | None:
        """The state that was saved under this key; None if there is none.

        A checkpoint that is damaged or has another key is removed.
        """
        if not self.path.is_file():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            if state["key"] == self.key:
                return state
        except Exception as error:  # torn bytes fail in every way that a reader can
            print(f"{self.path}: damaged, and not used: {error}", flush=True)
        self.path.unlink()
        return None

    def should_save(self) -> bool:
        """Whether enough time has passed since the last save."""
        return time.monotonic() >= self._next_save

    def save(self, state: dict[str, Any]) -> None:
        """Replace the file by `state`."""
        started = time.monotonic()
        with replacing(self.path) as temporary:
            torch.save({"key": self.key, **state}, temporary)
        seconds = time.monotonic() - started
        self._next_save = time.monotonic() + max(MIN_INTERVAL, seconds / MAX_TIME_SHARE)
