"""The state folder of an unfinished training: its lock, its attempts, and requests to stop."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dmlbench.utils.files import read_json_if_whole, write_json

MAKES_NUMBERS = False
MAX_IDLE_ATTEMPTS = 2
"""After this many attempts in a row without progress, the run has failed."""
SAVING_SHARE = 0.05
"""The share of the allowed minutes that is kept for saving."""
MAX_SILENCE = 300.0
"""A trainer on another machine that gave no sign for this many seconds may be dead."""


class Stopped(Exception):
    """The training was asked to stop, and has saved its state.

    `reason` is "stopped" or "timeout".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@contextlib.contextmanager
def hold_state(state: Path) -> Iterator[None]:
    """Hold the state folder of a run.

    If another trainer works on the same run, wait for it. It may be left over from a workflow that
    was killed.
    """
    waited = False
    while True:
        state.mkdir(parents=True, exist_ok=True)
        try:
            lock = (state / "lock").open("w")
        except FileNotFoundError:
            continue  # its last holder has just removed the folder
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waited:
                    print(f"another trainer works on {state}: waiting for it", flush=True)
                waited = True
                fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                is_same = (state / "lock").stat().st_ino == os.fstat(lock.fileno()).st_ino
            except FileNotFoundError:
                is_same = False
            if is_same:  # else its last holder removed the folder, and this lock guards nothing
                yield
                return


class Attempts:
    """Counts the attempts that ended without progress: a death by SIGKILL leaves no other trace."""

    def __init__(self, state: Path, key: str) -> None:
        self.path = state / "attempts.json"
        self.saved = _time_of_checkpoint(state)
        self.now: dict[str, Any] = {
            "key": key,
            "saved": self.saved,
            "idle": 0,
            "ended": "killed",
            "host": platform.node(),  # only here can `status` see who holds the lock
        }
        last = read_json_if_whole(self.path)
        if last and last["key"] == key:
            is_idle = self.saved <= last["saved"] and last["ended"] != "stopped"
            self.now["idle"] = last["idle"] + 1 if is_idle else 0
            self.now["ended"] = last["ended"]

    def failure(self) -> dict[str, Any] | None:
        """The result of a run that makes no progress, with status killed or timeout.

        None if the run may have another attempt.
        """
        if self.now["idle"] < MAX_IDLE_ATTEMPTS:
            return None
        message = f"{MAX_IDLE_ATTEMPTS} attempts in a row ended without progress"
        return {"status": self.now["ended"], "error": {"message": message, "tail": []}}

    def begin(self) -> None:
        """Record that an attempt begins."""
        self.end("killed")  # until it ends in another way

    def end(self, reason: str) -> None:
        """Record how this attempt ends: killed, timeout, or stopped by the user."""
        self.now["ended"] = reason
        write_json(self.path, self.now)

    def forget(self) -> None:
        """Remove the record."""
        self.path.unlink(missing_ok=True)


def _time_of_checkpoint(state: Path) -> int:
    """When the checkpoint was saved, in nanoseconds; -1 if there is none."""
    try:
        return (state / "checkpoint.pt").stat().st_mtime_ns
    except FileNotFoundError:
        return -1


@contextlib.contextmanager
def stop_requests(max_minutes: float | None) -> Iterator[Callable[[], str | None]]:
    """Yield a function that returns the reason to stop, or None.

    The reason is "stopped" after SIGTERM or SIGINT, and "timeout" when `max_minutes` are nearly
    over.
    """
    caught: list[int] = []
    allowed = 60 * max_minutes * (1 - SAVING_SHARE) if max_minutes else float("inf")
    deadline = time.monotonic() + allowed

    def stop() -> str | None:
        if caught:
            return "stopped"
        return "timeout" if time.monotonic() > deadline else None

    def catch(number: int, _frame: Any) -> None:
        caught.append(number)

    before = {number: signal.signal(number, catch) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class UnfinishedTraining(NamedTuple):
    """A training that has begun and has not finished."""

    state: Literal["running", "stopped", "silent", "dead"]
    """silent: it runs on another machine, whose lock may be invisible here, and gives no sign."""
    progress: dict[str, Any]
    """The content of progress.json; empty before the first step."""
    idle: int
    """The number of attempts before this one that ended without progress."""
    quiet: float
    """Seconds since its last sign."""

    @property
    def place(self) -> str:
        """How far it came, in words."""
        if not self.progress:
            return "before its first step"
        return f"at step {self.progress['step']} of {self.progress['steps']}"


def inspect_training(state: Path, key: str) -> UnfinishedTraining | None:
    """The training under `key` in the folder `state`; None if none has begun."""
    is_held = _is_held(state / "lock")
    attempts = read_json_if_whole(state / "attempts.json")
    if not attempts or attempts["key"] != key:  # before the first attempt, or of other settings
        return UnfinishedTraining("running", {}, 0, 0.0) if is_held else None
    progress = read_json_if_whole(state / "progress.json") or {}
    last_sign = max(progress.get("time", 0.0), _modified(state / "attempts.json"))
    quiet = max(0.0, time.time() - last_sign)
    kind: Literal["running", "stopped", "silent", "dead"]
    if is_held:
        kind = "running"
    elif attempts["ended"] != "killed":  # an attempt has "killed" until it ends in another way
        kind = "stopped"
    elif is_held is False and attempts.get("host") == platform.node():
        kind = "dead"
    else:  # a kernel lock on another machine may be invisible here
        kind = "running" if quiet <= MAX_SILENCE else "silent"
    return UnfinishedTraining(kind, progress, attempts["idle"], quiet)


def _is_held(lock: Path) -> bool | None:
    """Whether a trainer on this machine holds `lock`; None if that cannot be found out."""
    try:
        with lock.open() as file:
            # shared, and only for a moment: a trainer that begins right then waits for it
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return None


def _modified(path: Path) -> float:
    """When `path` was modified, in seconds; 0 if it is missing."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
