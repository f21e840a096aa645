"""Trainings that are not finished, as their state folders tell: at work, stopped, or dead."""

from __future__ import annotations

import fcntl
import platform
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dmlbench.files import read_json_if_whole

QUIET = 300.0
"""Seconds without a sign after which a trainer on another machine is not believed in any more."""


class Unfinished(NamedTuple):
    state: Literal["running", "stopped", "silent", "dead"]
    """silent: a trainer on another machine, whose lock may not be seen here, gives no sign."""
    progress: dict[str, Any]
    """Of progress.json; empty before the first step."""
    idle: int
    """Attempts before this one that ended without progress."""
    quiet: float
    """Seconds since the last sign."""

    @property
    def place(self) -> str:
        """How far it came, in words."""
        if not self.progress:
            return "before its first step"
        return f"at step {self.progress['step']} of {self.progress['steps']}"


def look(state: Path, key: str) -> Unfinished | None:
    """The training under `key` in the folder `state`; None where none was begun."""
    held = _held(state / "lock")
    attempts = read_json_if_whole(state / "attempts.json")
    if not attempts or attempts["key"] != key:  # before the first attempt, or of other settings
        return Unfinished("running", {}, 0, 0.0) if held else None
    progress = read_json_if_whole(state / "progress.json") or {}
    last = max(progress.get("time", 0.0), _changed(state / "attempts.json"))
    quiet = max(0.0, time.time() - last)
    if held:
        how: Any = "running"
    elif attempts["ended"] != "killed":  # which stands there from the beginning of an attempt
        how = "stopped"
    elif held is False and attempts.get("host") == platform.node():
        how = "dead"
    else:  # a kernel lock on another machine may not reach this one
        how = "running" if quiet <= QUIET else "silent"
    return Unfinished(how, progress, attempts["idle"], quiet)


def _held(lock: Path) -> bool | None:
    """Whether a trainer that this machine's kernel knows of holds `lock`; None: it cannot say."""
    try:
        with lock.open() as file:
            # shared, for a moment: a trainer that begins right then waits for it
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return None


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
