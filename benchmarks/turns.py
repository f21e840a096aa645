"""Trainings in processes that take turns, or run at once, and measure windows of steps."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

WARM_UP = {"cpu": 10, "cuda": 50}
"""Steps before each window. They use up the batches that were prepared during the other turns. The
workers of the peer prepare batches after its turn too, and become idle in this time."""
TURN, STOP = "turn", "stop"
"""What a process is sent: for a window of steps, and at the end."""


class Ended(Exception):
    """There is no other turn."""


class Turns:
    """It is called at the beginning of each step. After a window, it waits for the other turns."""

    def __init__(self, pipe: Connection, setting: SimpleNamespace) -> None:
        self.pipe, self.setting, self.step, self.waited = pipe, setting, 0, 0.0

    def __call__(self) -> None:
        if self.step == WARM_UP[self.setting.device]:
            self.start = self.clocks()
        if self.step == WARM_UP[self.setting.device] + self.setting.window:
            ends = self.clocks()
            self.pipe.send([end - start for start, end in zip(self.start, ends, strict=True)])
            self.step = 0
        if not self.step and self.pipe.recv() == STOP:
            raise Ended
        self.step += 1

    def clocks(self) -> tuple[float, float, float]:
        """Seconds of the clock, of the processors, and of waiting for data."""
        if self.setting.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter(), processor_seconds(), self.waited

    def timed(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches; the time to wait for each is counted."""
        batches = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch


Way = Callable[[SimpleNamespace, Turns], None]
"""A way to train: it calls its turns at the beginning of each step."""


def processor_seconds() -> float:
    """Seconds that processors worked for this process and its workers."""
    ticks = 0
    for worker in multiprocessing.active_children():
        status = Path(f"/proc/{worker.pid}/stat")
        if status.exists():
            ticks += sum(map(int, status.read_text().rpartition(")")[2].split()[11:13]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def start(way: Way, setting: SimpleNamespace) -> Connection:
    """Start a process of a way to train; the pipe gives it turns.

    The process is a copy of this one, so it need not import torch. This one must not have used the
    GPU.
    """
    context = multiprocessing.get_context("fork")
    pipe, far_end = context.Pipe()
    context.Process(target=take_turns, args=(way, setting, far_end)).start()
    far_end.close()
    return pipe


def take_turns(way: Way, setting: SimpleNamespace, pipe: Connection) -> None:
    """Train in this process, until it is told to stop."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the lines of the training are not for the table
    with contextlib.suppress(Ended):
        way(setting, Turns(pipe, setting))


def window(pipe: Connection) -> list[float]:
    """What a process measured in its turn.

    Raises:
        RuntimeError: it ended instead.
    """
    try:
        return pipe.recv()
    except EOFError:
        raise RuntimeError("a training ended before its turn was over: see above") from None


def end(pipes: Iterable[Connection]) -> None:
    """Let the processes at the other ends of `pipes` end."""
    for pipe in pipes:
        with contextlib.suppress(OSError):  # it has ended
            pipe.send(STOP)
    for process in multiprocessing.active_children():
        process.join()
