"""The state folder of a run that is not finished: one trainer at a time, how its attempts
ended, and the wish to stop."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dmlbench.files import read_json_if_whole, write_json

IDLE_ATTEMPTS = 2  # attempts without progress that end a run
MARGIN = 0.05  # of the allowed minutes, kept for saving


class Stopped(Exception):
    """The training was asked to stop: "stopped" or "timeout". What it had learnt is saved."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@contextlib.contextmanager
def alone(state: Path) -> Iterator[None]:
    """Hold the run's state folder; wait for another trainer of the same run, which may be the
    orphan of a killed workflow."""
    waited = False
    while True:
        state.mkdir(parents=True, exist_ok=True)
        try:
            lock = (state / "lock").open("w")
        except FileNotFoundError:
            continue  # its last holder removed the folder just now
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waited:
                    print(f"another trainer works on {state}: waiting for it", flush=True)
                waited = True
                fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                same = (state / "lock").stat().st_ino == os.fstat(lock.fileno()).st_ino
            except FileNotFoundError:
                same = False
            if same:  # else its last holder removed the folder: this lock guards nothing
                yield
                return


class Attempts:
    """Counts attempts that died without progress: a death by SIGKILL leaves no other trace."""

    def __init__(self, state: Path, key: str) -> None:
        self.path = state / "attempts.json"
        self.saved = _last_save(state)
        self.now: dict[str, Any] = {
            **{"key": key, "saved": self.saved, "idle": 0, "ended": "killed"},
            "host": platform.node(),  # whose kernel knows the lock; for `status`
        }
        last = read_json_if_whole(self.path)
        if last and last["key"] == key:
            idle = self.saved <= last["saved"] and last["ended"] != "stopped"
            self.now["idle"] = last["idle"] + 1 if idle else 0
            self.now["ended"] = last["ended"]

    def hopeless(self) -> dict[str, Any] | None:
        """The failure of a run that gets nowhere, with status killed or timeout."""
        if self.now["idle"] < IDLE_ATTEMPTS:
            return None
        message = f"{IDLE_ATTEMPTS} attempts in a row ended without progress"
        return {"status": self.now["ended"], "error": {"message": message, "tail": []}}

    def begin(self) -> None:
        self.end("killed")  # until something better is known

    def end(self, how: str) -> None:
        """Note how this attempt ends: killed, timeout, or stopped by somebody's wish."""
        self.now["ended"] = how
        write_json(self.path, self.now)

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


def _last_save(state: Path) -> int:
    """Time of the checkpoint in nanoseconds; -1 without one."""
    try:
        return (state / "checkpoint.pt").stat().st_mtime_ns
    except FileNotFoundError:
        return -1


@contextlib.contextmanager
def stop_requests(max_minutes: float | None) -> Iterator[Callable[[], str | None]]:
    """Yield a function that answers with the reason to stop, or None: "stopped" by SIGTERM or
    SIGINT, or "timeout" as `max_minutes` are nearly over."""
    caught: list[int] = []
    limit = time.monotonic() + 60 * max_minutes * (1 - MARGIN) if max_minutes else float("inf")

    def stop() -> str | None:
        if caught:
            return "stopped"
        return "timeout" if time.monotonic() > limit else None

    def note(number: int, _frame: Any) -> None:
        caught.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
