"""The progress of a training: a bar on a terminal, lines in a log, a file for `dmlbench status`."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from dmlbench.training.run_state import PROGRESS
from dmlbench.utils.files import write_json

if TYPE_CHECKING:
    from torch import Tensor

MAKES_NUMBERS = False
INTERVAL = 1.0
"""Seconds between two reports. Only then is the loss read from the device."""


class Progress:
    """Reports the progress of a training from step `step` of `total`, with `batch` images each."""

    def __init__(self, folder: Path, *, device: str, total: int, step: int, batch: int) -> None:
        self.path = folder / PROGRESS
        self.facts = {"device": device, "host": platform.node(), "pid": os.getpid()}
        self.total, self.first, self.batch = total, step, batch
        self.started = time.monotonic()
        self._next_report = 0.0
        self.bar = tqdm(
            total=total, initial=step, unit="step", disable=not sys.stderr.isatty(), leave=False
        )

    def step(self, step: int, loss: Tensor) -> None:
        """Report that `step` steps are done, the last one with this loss."""
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + INTERVAL
            rate = (step - self.first) / (now - self.started)
            value = float(loss)
            self.bar.set_postfix_str(f"loss {value:.4g}, {rate * self.batch:.0f} images/s")
            self.bar.update(step - self.bar.n)
            self._write(step, rate, value)

    def epoch(self, row: dict[str, Any], epochs: int) -> None:
        """Report that an epoch is done; `row` is its row of the history.

        The log has the epochs of earlier attempts already.
        """
        if self.bar.disable and row["step"] > self.first:
            print(
                f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.5g}, lr {row['lr']:.3g}, "
                f"{row['images_per_second']:.0f} images/s",
                flush=True,
            )

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()

    def _write(self, step: int, rate: float, loss: float) -> None:
        left = (self.total - step) / rate if rate > 0 else None
        state = {"step": step, "steps": self.total, "steps_per_second": rate, "loss": loss}
        write_json(self.path, {**self.facts, **state, "seconds_left": left, "time": time.time()})
