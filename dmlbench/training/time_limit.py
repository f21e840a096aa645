"""When a training must stop: a signal, or the end of its job is near."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dmlbench.utils.cluster_job import job_end
from dmlbench.utils.text import format_duration

MAKES_NUMBERS = False
MARGIN_SHARE, MIN_MARGIN = 0.05, 120.0
"""The share of a time limit, and the seconds, that are kept for saving, whichever is more."""
MAX_MARGIN_SHARE = 0.25
"""A short limit keeps at most this share, and only until steps and saving are measured."""
MAX_SAVING_SHARE = 0.5
"""It never keeps more: some steps must be done between start and saving."""
NEAR_END = 240.0
"""Seconds: SLURM's `--signal=TERM@120` comes up to a minute early."""
ALWAYS_CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
"""Schedulers send these before they kill: SLURM what `--signal` says, SGE the last three."""


class Stopped(Exception):
    """The training was asked to stop, and has saved its state.

    `reason` is "stopped" or "timeout".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass
class Timings:
    """Seconds that parts of a training took when they were last done; None: not yet."""

    start: float | None = None
    """From the start of the job to the first step, with all waiting."""
    step: float | None = None
    save: float | None = None
    """To bring a checkpoint to the state folder."""
    saving: float = 0.0
    """The training waited this long for all checkpoints together."""
    wait: float = 0.0
    """Until the job got its GPU."""

    def __str__(self) -> str:
        parts = {"the start": self.start, "a step": self.step, "a checkpoint": self.save}
        known = [f"{part} {_seconds(value)}" for part, value in parts.items() if value is not None]
        return ", ".join(known)


timings = Timings()
"""Those of this process, which does one training."""


class TimeLimit:
    """The time in which a training must have saved its state and ended.

    Args:
        max_minutes: the limit from now on; None: none is known.
        end: when the scheduler ends the job, in seconds since 1970; None: that is not known.
    """

    def __init__(self, max_minutes: float | None, end: float | None = None) -> None:
        self.began = time.monotonic()
        limits = [60 * max_minutes] if max_minutes else []
        limits += [max(0.0, end - time.time())] if end is not None else []
        self.seconds = min(limits, default=float("inf"))
        """From now on."""

    @property
    def left(self) -> float:
        """Seconds until the limit."""
        return self.began + self.seconds - time.monotonic()

    @property
    def margin(self) -> float:
        """Seconds that are kept for the last steps and for saving, as slow as they were so far."""
        measured = 2 * (timings.save or 0.0) + 2 * (timings.step or 0.0)
        usual = max(MARGIN_SHARE * self.seconds, MIN_MARGIN)
        if usual > MAX_MARGIN_SHARE * self.seconds:  # a short limit must not be eaten by it
            is_known = timings.save is not None and timings.step is not None
            share = MARGIN_SHARE if is_known else MAX_MARGIN_SHARE
            usual = share * self.seconds
        return min(max(usual, measured), MAX_SAVING_SHARE * self.seconds)

    @property
    def is_near(self) -> bool:
        """Whether it is time to save."""
        return self.seconds < float("inf") and self.left <= self.margin

    def __str__(self) -> str:
        return _seconds(self.seconds) if self.seconds < float("inf") else "no time limit"


def read_time_limit(max_minutes: float | None) -> TimeLimit:
    """The time limit of this job: `max_minutes` from now on, or its end if that is earlier.

    Raises:
        WrongEnvironment: the variable that says when the job ends holds no time.
    """
    return TimeLimit(max_minutes, job_end())


class StopRequests:
    """Whether a training must stop. `train` calls it before each step."""

    def __init__(self, limit: TimeLimit) -> None:
        self.limit = limit
        self.caught: list[int] = []
        """The signals that came."""
        self._ends_at_once = False
        self._last_call: tuple[float, float] | None = None

    def __call__(self) -> str | None:
        """The reason to stop, or None; measure the steps."""
        self._ends_at_once = False  # from now on there is something to save
        now = time.monotonic()
        if self._last_call is None:
            timings.start = now - self.limit.began
        else:
            then, saving = self._last_call
            timings.step = now - then - (timings.saving - saving)
        self._last_call = now, timings.saving
        return self.reason

    @contextlib.contextmanager
    def ending_at_once(self) -> Iterator[None]:
        """Let requests raise Stopped wherever the process is, until the next step.

        For the time in which nothing is to be saved: the start, which may take minutes, and the
        embedding after the last step.

        Raises:
            Stopped: there was a request, or one comes.
        """
        self._ends_at_once = True
        try:
            self._end_if_asked()
            yield
        finally:
            self._ends_at_once = False

    def _end_if_asked(self) -> None:
        if self._ends_at_once and (reason := self.reason):
            self._ends_at_once = False  # raise it once
            raise Stopped(reason, f"{reason}: between its steps, so the last checkpoint stays")

    @property
    def reason(self) -> str | None:
        """The reason to stop, or None.

        It is "timeout" if the limit is near, and "stopped" after a signal before that. A signal
        shortly before the limit is the scheduler's warning.
        """
        if self.limit.is_near:
            return "timeout"
        if self.caught:
            is_warning = signal.SIGINT not in self.caught and self.limit.left <= NEAR_END
            return "timeout" if is_warning else "stopped"
        return None


@contextlib.contextmanager
def stop_requests(limit: TimeLimit) -> Iterator[StopRequests]:
    """Catch the signals by which users and schedulers ask a job to end, and yield what came."""
    requests = StopRequests(limit)

    def catch(number: int, _frame: Any) -> None:
        if number != signal.SIGALRM:
            requests.caught.append(number)
        requests._end_if_asked()

    numbers = [*ALWAYS_CAUGHT, signal.SIGALRM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup sets it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, catch) for number in numbers}
    if limit.seconds < float("inf"):  # a late alarm: `reason` must know that it is time
        signal.setitimer(signal.ITIMER_REAL, max(0.0, limit.left - limit.margin) + 0.001)
    try:
        yield requests
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _seconds(seconds: float) -> str:
    """`0.25 s`, `12 s`, `3 min`."""
    return f"{seconds:.2g} s" if seconds < 10 else format_duration(seconds)
