"""The state of an unfinished training on disk."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from dmlbench.files import replacing

SHARE = 0.005  # of the time may go into saving
PATIENCE = 1.0  # seconds between two saves, at the least


class Checkpoint:
    """One file in the run's state folder, under the run's key. Saving costs at most half a
    percent of the time, however large the model: `due` waits 200 times as long as a save took."""

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / "checkpoint.pt"
        self.key = key
        self._next = time.monotonic() + PATIENCE

    def load(self) -> dict[str, Any] | None:
        """What was saved under this key; a damaged checkpoint, or one of another key, is thrown
        away."""
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

    def due(self) -> bool:
        return time.monotonic() >= self._next

    def save(self, state: dict[str, Any]) -> None:
        started = time.monotonic()
        with replacing(self.path) as temporary:
            torch.save({"key": self.key, **state}, temporary)
        took = time.monotonic() - started
        self._next = time.monotonic() + max(PATIENCE, took / SHARE)
