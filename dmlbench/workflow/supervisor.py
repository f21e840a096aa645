"""The supervisor of `dmlbench submit`: it sees a study through, whatever happens meanwhile.

It is thin: Snakemake does the work. Before each start it settles the jobs that an earlier
call left in the queue. It stops a Snakemake that waits for jobs which have ended, and starts it
again as long as the study gets on.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

from dmlbench.study.study import Study
from dmlbench.utils.files import data_folder
from dmlbench.utils.text import count_of, format_duration
from dmlbench.workflow import scheduler
from dmlbench.workflow.driver import DriverFile
from dmlbench.workflow.failed_jobs import find_failed_jobs
from dmlbench.workflow.launch import snakemake_command
from dmlbench.workflow.scheduler import ClusterJob
from dmlbench.workflow.snakemake_process import ForgottenJobs, SnakemakeProcess
from dmlbench.workflow.status import FINISHED, RunStatus, format_statuses, read_statuses
from dmlbench.workflow.study_lock import find_worker

Orphans = Literal["default", "wait", "cancel"]
"""What is done with jobs of an earlier call: wait for those that run and cancel those that wait in
the queue; wait for all; cancel all."""
TICK = 0.2
"""Seconds between two looks whether Snakemake has ended."""
POLL = 15.0
"""Seconds between two questions to the scheduler."""
FORGOTTEN_AFTER = 300.0
"""Snakemake's plugin asks for its jobs every 180 s or more often. If it says nothing for this many
seconds after the last job has left the queue, it has forgotten it."""
STOP_PATIENCE = 240.0
"""Seconds that Snakemake has to end after SIGINT: its plugin may sleep for 180 s."""
FIRST_PAUSE, LONGEST_PAUSE, PAUSE_FACTOR = 10.0, 900.0, 3
"""Seconds before the next start, after a start that got the study no further."""
MAX_IDLE_STARTS = 6
"""After this many starts in a row that got the study no further, the driver gives up."""
ALL_DONE, RUNS_FAILED, GAVE_UP, STOPPED = 0, 1, 2, 128 + signal.SIGINT
"""Exit codes."""


class StopRequested(Exception):
    """Somebody asked the driver to stop, by SIGINT or SIGTERM."""


@dataclass
class Supervisor:
    """Sees a study through.

    Args:
        file: the study file.
        arguments: those of Snakemake, among them the profile.
        on_slurm: whether its jobs go to SLURM.
        orphans: what is done with jobs of an earlier call.
        driver_file: where the driver says what it does.
        log: the log of the driver, which Snakemake writes to as well.
    """

    study: Study
    file: Path
    arguments: Sequence[str]
    on_slurm: bool
    orphans: Orphans
    driver_file: DriverFile
    log: BinaryIO
    stop_requested: bool = False

    def run(self) -> int:
        """See the study through; an exit code."""
        with self._catch_signals():
            try:
                code = self._run()
            except StopRequested:
                code = STOPPED
        self._say(*self._summary())
        if code == STOPPED:
            self._say("stopped. " + self._describe_queue())
        elif code == GAVE_UP:
            self._say(
                f"gave up: {count_of(MAX_IDLE_STARTS, 'start')} in a row got the study no further. "
                "See the log above for the reason, and call `dmlbench submit` again."
            )
        return code

    def _run(self) -> int:
        idle = 0
        if snakemake := self._find_snakemake():
            self._say(f"Snakemake already works on the study (process {snakemake.pid}): joins it")
            self._watch(snakemake)
        while True:
            if self.on_slurm:
                self._settle_orphans()
            before = _progress(self._read_statuses())
            starts = self.driver_file.driver.starts + 1
            self.driver_file.update(starts=starts)
            code = self._watch(self._start())
            if code == 0:
                return ALL_DONE
            statuses = self._read_statuses()
            advanced = _has_advanced(before, _progress(statuses))
            if _is_final(statuses, advanced):
                return RUNS_FAILED
            if advanced:
                idle, pause = 0, FIRST_PAUSE
            else:
                idle += 1
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * PAUSE_FACTOR ** (idle - 1))
            if idle == MAX_IDLE_STARTS:
                return GAVE_UP
            ended = "was stopped" if code is None else f"ended with exit code {code}"
            again = f"starts it again in {format_duration(pause)}"
            self._say(f"Snakemake {ended}, and the study is not complete: {again}")
            self._wait(pause, f"waits {format_duration(pause)} before the next start")

    def _read_statuses(self) -> list[RunStatus]:
        """How far the runs are. Wait while the disk fails, as one of the network may."""
        while True:
            try:
                return read_statuses(self.study)
            except OSError as error:
                self._say(f"the results cannot be read: {error}")
                self._wait(LONGEST_PAUSE, "waits for the disk")

    def _find_snakemake(self) -> SnakemakeProcess | None:
        """The Snakemake of an earlier driver that was killed, or that somebody started by hand."""
        worker = find_worker(self.study)
        return SnakemakeProcess(worker.pid) if worker and worker.pid else None

    def _start(self) -> SnakemakeProcess:
        arguments = [*self.arguments, "--rerun-incomplete"]
        if self.on_slurm:
            arguments += ["--slurm-jobname-prefix", job_prefix(self.study.name)]
        return SnakemakeProcess.start(snakemake_command(self.file, arguments), self.log)

    def _watch(self, snakemake: SnakemakeProcess) -> int | None:
        """Wait until Snakemake ends; its exit code, or None if it was stopped or is not known.

        Raises:
            StopRequested: and Snakemake was stopped.
        """
        forgotten = ForgottenJobs(FORGOTTEN_AFTER)
        next_poll = time.monotonic() + POLL
        while not snakemake.has_ended():
            try:
                self._wait(TICK, "runs Snakemake")
            except StopRequested:
                self._stop(snakemake)
                raise
            if self.on_slurm and time.monotonic() > next_poll:
                jobs = self._jobs()
                self._free_held_jobs(jobs or [])
                queue = None if jobs is None else [job.number for job in jobs]
                if forgotten.look(snakemake, queue):
                    self._say(
                        "Snakemake waits for jobs that have left the queue: its plugin has "
                        "forgotten them. Their results are not lost"
                    )
                    self._stop(snakemake)
                    return None
                next_poll = time.monotonic() + POLL
        return snakemake.exit_code

    def _free_held_jobs(self, jobs: Sequence[ClusterJob]) -> None:
        """Cancel the jobs that SLURM would hold for ever; then Snakemake submits them again."""
        if held := [job for job in jobs if job.is_held_for_ever]:
            numbers = ", ".join(job.number for job in held)
            self._say(
                f"SLURM could not start jobs on their nodes, and holds them: cancels {numbers}"
            )
            scheduler.cancel(held)

    def _stop(self, snakemake: SnakemakeProcess) -> None:
        """Stop Snakemake, which cancels its jobs; trainings save their state."""
        self._say("stops Snakemake, which cancels its jobs; trainings save their state")
        self.stop_requested = False
        deadline = time.monotonic() + STOP_PATIENCE
        snakemake.interrupt()
        while not snakemake.has_ended():
            time.sleep(TICK)
            if self.stop_requested or time.monotonic() > deadline:
                self._say("Snakemake did not end: kills it. Its jobs may stay in the queue")
                snakemake.interrupt(signal.SIGKILL)
                self.stop_requested = False
                deadline = time.monotonic() + STOP_PATIENCE

    def _jobs(self) -> list[ClusterJob] | None:
        """The jobs of this study that wait or run; None: not known.

        Those of a Snakemake that was started by hand do not say of which study they are. They count
        too, if they were submitted from this folder.
        """
        jobs, here = scheduler.read_jobs(), Path.cwd().resolve()
        if jobs is None:
            return None
        prefixes = (job_prefix(self.study.name), scheduler.PREFIX)
        return [job for job in jobs if job.prefix in prefixes and job.folder == here]

    def _known_jobs(self) -> list[ClusterJob]:
        """The jobs of this study. Wait until the scheduler answers."""
        jobs = self._jobs()
        if jobs is None:
            self._say("the scheduler does not answer: waits until it does")
        while jobs is None:
            self._wait(POLL, "waits for the scheduler")
            jobs = self._jobs()
        return jobs

    def _settle_orphans(self) -> None:
        """Wait until no job of an earlier call is in the queue, or cancel it."""
        orphans = self._known_jobs()
        if not orphans:
            return
        prefix = job_prefix(self.study.name)
        pending = [job for job in orphans if job.is_pending and job.prefix == prefix]
        doomed = {"default": pending, "wait": [], "cancel": orphans}
        running = [job for job in orphans if not job.is_pending]
        self._say(
            f"jobs of an earlier call: {len(running)} running, {len(orphans) - len(running)} "
            f"pending. Cancels {len(doomed[self.orphans])}, and waits until none of them is left"
        )
        if doomed[self.orphans]:
            scheduler.cancel(doomed[self.orphans])
        numbers = {job.number for job in orphans}
        while numbers := numbers & {job.number for job in self._known_jobs()}:
            self._wait(POLL, f"waits for {count_of(len(numbers), 'job')} of an earlier call")

    def _summary(self) -> list[str]:
        """What is done, what failed and why, and the time that the trainings used."""
        statuses = read_statuses(self.study, is_over=True)
        failed_jobs = find_failed_jobs(self.study, data_folder(), is_over=True)
        lines = format_statuses(self.study, statuses, failed_jobs)
        for kind, on_gpu in {"GPU": True, "CPU": False}.items():
            hours = sum(s.train_seconds for s in statuses if s.on_gpu == on_gpu) / 3600
            if hours:
                lines.append(f"Finished trainings used {hours:.2f} {kind}-hours.")
        return lines

    def _describe_queue(self) -> str:
        jobs = self._jobs() if self.on_slurm else []
        if jobs is None:
            return "The scheduler does not answer: jobs of this study may still be in its queue."
        if not jobs:
            return "No job of this study is left in the queue."
        if all(job.state == "COMPLETING" for job in jobs):
            return "Its last jobs are ending; no other one is left in the queue."
        again = "`dmlbench submit` finds them when it is called again"
        return f"In the queue: {', '.join(f'{job.number} ({job.state})' for job in jobs)}. {again}."

    def _wait(self, seconds: float, doing: str) -> None:
        """Wait.

        Raises:
            StopRequested: a signal came before or meanwhile.
        """
        deadline = time.monotonic() + seconds
        self.driver_file.update(doing=doing)
        while True:
            if self.stop_requested:
                raise StopRequested
            if (left := deadline - time.monotonic()) <= 0:
                return
            time.sleep(min(TICK, left))
            self.driver_file.update()

    @contextlib.contextmanager
    def _catch_signals(self) -> Iterator[None]:
        def catch(number: int, _frame: Any) -> None:
            self.stop_requested = True

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, catch) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _say(self, *lines: str) -> None:
        now = datetime.now().isoformat(" ", "seconds")
        text = "\n".join([f"{now} dmlbench submit: {lines[0]}", *lines[1:], ""])
        with contextlib.suppress(OSError):  # a full disk must not end the driver
            self.log.write(text.encode())
            self.log.flush()


def job_prefix(study: str) -> str:
    """The beginning of the names of the jobs of a study, as the plugin allows it.

    >>> job_prefix("cub")
    'dmlbench-cub'
    >>> job_prefix("cub+cars") == job_prefix("cub.cars")
    False
    """
    name = re.sub(r"[^A-Za-z0-9-]", "-", study)[:30]
    if name != study:
        name += f"-{hashlib.sha256(study.encode()).hexdigest()[:8]}"
    return f"{scheduler.PREFIX}-{name}"


def _progress(statuses: Sequence[RunStatus]) -> dict[str, tuple[int, float]]:
    """How far each trial and each run is: a pair of numbers that rises."""
    progress = {}
    for status in statuses:
        rank = {"done": 2, "failed": 2, "unscored": 1}.get(status.state, 0)
        part = status.unfinished.part_of_steps(status.folds) if status.unfinished else 0.0
        progress[status.path] = (rank, part)
    return progress


def _is_final(statuses: Sequence[RunStatus], advanced: bool) -> bool:
    """Whether another start would only repeat what failed.

    A failure that is no result, as of a node whose GPU is broken, is tried a second time.
    """
    failed = [status for status in statuses if status.state == "failed"]
    if not failed or any(status.state not in FINISHED for status in statuses):
        return False
    return not advanced or all(status.has_result for status in failed)


def _has_advanced(
    before: Mapping[str, tuple[int, float]], after: Mapping[str, tuple[int, float]]
) -> bool:
    return any(place > before[run] for run, place in after.items())
