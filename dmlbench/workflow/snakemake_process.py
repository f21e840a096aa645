"""A Snakemake that another process watches: it is started, stopped, and seen to wait in vain."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import BinaryIO

import psutil

BUSY = 0.03
"""The share of a core that a Snakemake which works uses, even on a busy machine. One that waits
uses far less."""
QUESTIONS = frozenset({"squeue", "sacct", "scontrol", "sinfo", "sacctmgr"})
"""Commands that Snakemake's plugin starts to ask for the state of its jobs."""


class SnakemakeProcess:
    """A Snakemake: one that this process started, or one that it found.

    Args:
        pid: its number.
        child: it as a child of this process, if it is one.
    """

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._child = child
        self._process: psutil.Process | None = None
        self._used = 0.0
        with contextlib.suppress(psutil.Error):
            self._process = psutil.Process(pid)

    @classmethod
    def start(cls, command: Sequence[str], log: BinaryIO) -> SnakemakeProcess:
        """Start it, in a process group with its local jobs, and append its output to `log`.

        Call this after the handler of SIGINT is set: a process that a shell started in the
        background ignores SIGINT, and what it starts would do so too.
        """
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches it through the driver alone
        )
        return cls(child.pid, child)

    def has_ended(self) -> bool:
        if self._child:
            return self._child.poll() is not None
        try:
            return not self._process or self._process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            return True

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None if it runs, or is not a child of this process."""
        return self._child.returncode if self._child else None

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send it a signal, and to its local jobs, as a terminal does with Ctrl-C.

        SIGTERM can let it hang for ever: its handler waits for a lock that it holds itself.
        """
        with contextlib.suppress(ProcessLookupError):
            if self._child:
                os.killpg(self.pid, number)
            else:  # its group may be the one of a shell
                os.kill(self.pid, number)

    def is_working(self, seconds: float) -> bool:
        """Whether it computes, or a job of its own runs on this machine.

        Args:
            seconds: since the last call.
        """
        if not self._process:
            return False
        try:
            with self._process.oneshot():
                used = sum(self._process.cpu_times()[:2])
            jobs = [c for c in self._process.children() if c.name() not in QUESTIONS]
        except psutil.Error:
            return False
        before, self._used = self._used, used
        return bool(jobs) or used - before > BUSY * seconds

    def last_message(self) -> float:
        """When it last wrote to its log in .snakemake/log, in seconds since 1970; 0: unknown."""
        if not self._process:
            return 0.0
        times = [0.0]
        with contextlib.suppress(psutil.Error, OSError):
            files = [Path(file.path) for file in self._process.open_files()]
            times += [f.stat().st_mtime for f in files if f.parts[-3:-1] == (".snakemake", "log")]
        return max(times)


class ForgottenJobs:
    """Notices that Snakemake waits for jobs that have ended.

    Its plugin for SLURM forgets its jobs if the scheduler does not answer, and does not see the end
    of a job whose state it does not know. Then it waits for ever. What both have in common: the
    queue is empty, and Snakemake says nothing about it and does nothing. As long as some of its
    jobs are in the queue, they are left alone: to stop Snakemake would cancel those that it knows.

    Args:
        patience: seconds that it may take Snakemake to see the end of a job.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._message = 0.0
        self._looked = self._last_sign = time.monotonic()

    def look(self, snakemake: SnakemakeProcess, queue: Collection[str] | None) -> bool:
        """Look again; whether Snakemake waits in vain.

        Args:
            queue: the numbers of its jobs that wait or run; None: not known.
        """
        now, message = time.monotonic(), snakemake.last_message()
        is_working = snakemake.is_working(now - self._looked)
        if queue is None or queue or is_working or message != self._message:
            self._last_sign = now
        self._looked, self._message = now, message
        return now - self._last_sign > self.patience
