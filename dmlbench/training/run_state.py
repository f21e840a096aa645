"""The state folder of an unfinished training: its lock and its attempts."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dmlbench.training.time_limit import TimeLimit, Timings, timings
from dmlbench.utils.cluster_job import current_job, job_state, oom_kills
from dmlbench.utils.errors import WrongEnvironment
from dmlbench.utils.files import read_json_if_whole, write_json
from dmlbench.utils.locks import try_lock, wait_for_lock
from dmlbench.utils.text import format_duration

MAKES_NUMBERS = False
MAX_IDLE_ATTEMPTS = 2
"""After this many attempts in a row without progress, the run has failed."""
MAX_SILENCE = 300.0
"""A trainer on another machine that gave no sign for this many seconds may be dead."""
CHECKPOINT, PREVIOUS_CHECKPOINT = "checkpoint.pt", "checkpoint.previous.pt"
"""The last two checkpoints, in the state folder; or in that of each fold, inside it."""
FINISHED = "finished.json"
"""The history of a fold that is finished, in its folder."""
PROGRESS = "progress.json"
WAITED = "waited"
"""How an attempt ended whose time went by while it waited for a GPU: it counts for nothing."""
NOT_ITS_FAULT = frozenset({"NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "REQUEUED", "REVOKED"})
"""How SLURM says that a job ended by no fault of its own."""

MORE_MEMORY = (
    "Raise `memory_mb` under `cluster:` of the study, or lower `batch_size` or `image_size`; on "
    "one machine, let fewer jobs run at once (`--cores`)"
)
UNKNOWN: dict[str, Any] = {
    "saved": -1,
    "idle": 0,
    "ended": "killed",
    "message": "",
    "host": "",
    "job": None,
    "restarts": None,
    "limit": None,
    "oom_kills": float("inf"),
    "timings": asdict(Timings()),
}
"""The values that a record of attempts does not have."""


@contextlib.contextmanager
def hold_state(state: Path) -> Iterator[None]:
    """Hold the state folder of a run.

    If another trainer works on the same run, wait for it. It may be left over from a workflow that
    was killed.

    Raises:
        WrongEnvironment: the file system has no locks.
    """
    path = state / "lock"
    while True:
        state.mkdir(parents=True, exist_ok=True)
        try:
            lock = path.open("w")
        except FileNotFoundError:
            continue  # its last holder has just removed the folder
        with lock:
            wait_for_lock(lock, path, f"another trainer works on {state}: waiting for it")
            try:
                is_same = path.stat().st_ino == os.fstat(lock.fileno()).st_ino
            except FileNotFoundError:
                is_same = False
            if is_same:  # else its last holder removed the folder, and this lock guards nothing
                yield
                return


class Attempts:
    """Counts the attempts that ended without progress: a death by SIGKILL leaves no other trace."""

    def __init__(self, state: Path, key: str) -> None:
        self.path = state / "attempts.json"
        saved = _time_of_checkpoint(state)
        self.now: dict[str, Any] = {
            "key": key,
            "saved": saved,
            "idle": 0,
            "ended": "killed",
            "message": "",
            "host": platform.node(),  # only here can `status` see who holds the lock
            "process": os.getpid(),
            "job": current_job(),
            "restarts": os.environ.get("SLURM_RESTART_COUNT"),
            "began": time.time(),
            "oom_kills": oom_kills(),
        }
        if last := _read_attempts(self.path, key):
            ended, message = self._how_it_ended(last)
            self.now |= {"ended": ended, "message": message}
            if saved <= last["saved"] and ended != "stopped":
                self.now["idle"] = last["idle"] + (ended != WAITED)
            timings.save, timings.step = last["timings"]["save"], last["timings"]["step"]

    def _how_it_ended(self, last: dict[str, Any]) -> tuple[str, str]:
        """The status of the last attempt, and why. One that was killed wrote neither."""
        if last["ended"] != "killed":
            return last["ended"], last["message"]
        place = f"{last['host']}, job {last['job']}" if last["job"] else last["host"]
        state = self._scheduler_state(last)
        if state in NOT_ITS_FAULT:
            return "stopped", f"{state} ({place})"
        if state == "TIMEOUT":
            return "timeout", f"SLURM ended it: TIMEOUT ({place}). {more_time(last['timings'])}"
        if state == "OUT_OF_MEMORY":
            return "out_of_memory", f"SLURM ended it: OUT_OF_MEMORY ({place}). {MORE_MEMORY}"
        is_full = last["host"] == self.now["host"] and last["oom_kills"] < self.now["oom_kills"]
        cause = "out of memory?"
        if is_full:
            cause = "the kernel killed processes there, out of memory"
        elif last["limit"]:
            cause += f" or its time limit of {format_duration(last['limit'])}?"
        return "killed", f"it was killed ({place}: {cause}). {MORE_MEMORY}"

    def _scheduler_state(self, last: dict[str, Any]) -> str | None:
        """What SLURM says of the job of the last attempt, if that was another one."""
        if not last["job"]:
            return None
        if last["job"] != self.now["job"]:
            return job_state(last["job"])
        return "REQUEUED" if last["restarts"] != self.now["restarts"] else None

    def failure(self) -> dict[str, Any] | None:
        """The result of a run that makes no progress, with the status of its last attempt.

        None if the run may have another attempt.
        """
        if self.now["idle"] < MAX_IDLE_ATTEMPTS:
            return None
        count = f"{MAX_IDLE_ATTEMPTS} attempts in a row ended without progress"
        message = f"{count}. The last one: {self.now['message']}"
        return {"status": self.now["ended"], "error": {"message": message, "tail": []}}

    def begin(self, limit: TimeLimit) -> None:
        """Record that an attempt begins, which must end by `limit`."""
        self.now["limit"] = limit.seconds if limit.seconds < float("inf") else None
        self.end("killed", "")  # until it ends in another way

    def end(self, reason: str, message: str) -> None:
        """Record how this attempt ends: killed, timeout, waited, stopped by the user; and why."""
        self.now |= {"ended": reason, "message": message, "timings": asdict(timings)}
        write_json(self.path, self.now)

    def forget(self) -> None:
        """Remove the record."""
        self.path.unlink(missing_ok=True)


def more_time(timings: dict[str, Any]) -> str:
    """What to do about a limit that is too short, and how long the parts of an attempt took."""
    fix = "Raise `max_minutes` or `time_factor` under `cluster:` of the study"
    return ". ".join(filter(None, [str(Timings(**timings)), fix]))


def _read_attempts(path: Path, key: str) -> dict[str, Any] | None:
    """The record of the attempts under `key`; None if there is none."""
    record = read_json_if_whole(path)
    if not isinstance(record, dict) or record.get("key") != key:
        return None
    return UNKNOWN | record


def _time_of_checkpoint(state: Path) -> int:
    """When the last checkpoint was saved, or the last fold finished, in nanoseconds; -1 if that
    never happened."""
    times = [-1]
    for name in (CHECKPOINT, PREVIOUS_CHECKPOINT, FINISHED):
        for path in (state / name, *state.glob(f"*/{name}")):
            with contextlib.suppress(FileNotFoundError):
                times.append(path.stat().st_mtime_ns)
    return max(times)


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
    host: str = ""
    """The machine of its last attempt."""
    job: str | None = None
    """The scheduler's job of its last attempt, as "slurm:17"."""
    obstacle: str = ""
    """Why its last attempt could not begin: no GPU became free."""
    part: str = ""
    """The fold that it is at, as `fold2`; empty if it has no folds."""

    def part_of_steps(self, folds: int) -> float:
        """The part of all steps that is done, of `folds` folds together."""
        if not self.progress:
            return 0.0
        part = self.progress["step"] / self.progress["steps"]
        number = int(self.part.removeprefix("fold")) if self.part else 0
        return float((number + part) / folds)

    @property
    def place(self) -> str:
        """How far it came, in words."""
        if not self.progress:
            return "before its first step"
        part = f" of {self.part}" if self.part else ""
        return f"at step {self.progress['step']} of {self.progress['steps']}{part}"


def inspect_training(state: Path, key: str) -> UnfinishedTraining | None:
    """The training under `key` in the folder `state`; None if none has begun."""
    is_held = _is_held(state / "lock")
    attempts = _read_attempts(state / "attempts.json", key)
    if not attempts:  # before the first attempt, or of other settings
        return UnfinishedTraining("running", {}, 0, 0.0) if is_held else None
    files = [state / PROGRESS, *state.glob(f"*/{PROGRESS}")]
    last = max(files, key=_modified)
    progress = read_json_if_whole(last) or {}
    last_sign = max(progress.get("time", 0.0), _modified(state / "attempts.json"))
    quiet = max(0.0, time.time() - last_sign)
    kind: Literal["running", "stopped", "silent", "dead"]
    if is_held:
        kind = "running"
    elif attempts["ended"] != "killed":  # an attempt has "killed" until it ends in another way
        kind = "stopped"
    elif is_held is False and attempts["host"] == platform.node():
        kind = "dead"
    else:  # a kernel lock on another machine may be invisible here
        kind = "running" if quiet <= MAX_SILENCE else "silent"
    obstacle = attempts["message"] if attempts["ended"] == WAITED else ""
    return UnfinishedTraining(
        kind,
        progress,
        attempts["idle"],
        quiet,
        attempts["host"],
        attempts["job"],
        obstacle,
        last.parent.name if last.parent != state else "",
    )


def _is_held(lock: Path) -> bool | None:
    """Whether a trainer on this machine holds `lock`; None if that cannot be found out."""
    try:
        with lock.open() as file:
            # shared, and only for a moment: a trainer that begins right then waits for it
            return not try_lock(file, lock, shared=True)
    except (OSError, WrongEnvironment):  # there is none, or the disk has no locks
        return None


def _modified(path: Path) -> float:
    """When `path` was modified, in seconds; 0 if it is missing."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
