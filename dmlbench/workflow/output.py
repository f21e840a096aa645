"""What a person sees of Snakemake: one line for each job, and the end of the log of failed jobs.

Snakemake's own output has five lines for each job, and among them the names of all files that are
missing. Of a job that failed, it shows the whole log, also if the job goes on from its checkpoint.
Its log file, `.snakemake/log/`, keeps it all.
"""

from __future__ import annotations

import copy
import logging
import time
from pathlib import Path
from typing import Any

from dmlbench.utils.disk import find_full_disk
from dmlbench.utils.log_lines import PREFIX
from dmlbench.workflow.job_log import last_lines
from dmlbench.workflow.snakemake_jobs import is_asked_to_end

HIDDEN_EVENTS = frozenset({"group_info", "job_started", "job_finished", "resources_info"})
HIDDEN_LINES = (
    "Select jobs to execute",
    "Using shell: ",
    "Conda environments: ignored",
    "Group jobs: inactive",
    "Trying to restart job ",  # its error says that it goes on
    "RuleException:\nCalledProcessError in file ",  # the failed job's own lines follow
)
INTERRUPTED = "Terminating processes on user request"
"""Begins what Snakemake says after Ctrl-C."""
LOG_LINES = 30
"""Lines of the log of a failed job that are shown, if it does not say why it failed."""


def shorten_output(logger: logging.Logger, workflow: Any) -> None:
    """Let what `logger` writes to the terminal have one line for each job.

    Only Snakemake's own handler is changed; with another one, as of `--logger`, nothing is. With
    `--verbose`, nothing is either.

    On a full disk, Snakemake's log file loses lines: no traceback of `logging` is shown for each.

    Args:
        workflow: Snakemake's; its scheduler knows which of the failed jobs go on.
    """
    logging.raiseExceptions = False
    for handler in logger.handlers:
        if handler.name == "DefaultStreamHandler" and not logger.isEnabledFor(logging.DEBUG):
            lines = OneLinePerJob(handler.formatter or logging.Formatter(), workflow)
            handler.setFormatter(lines)
            handler.addFilter(lines.shows)


class OneLinePerJob(logging.Formatter):
    """Formats the records of Snakemake's jobs, and leaves all others to `inner`.

    The kind of a record and its other attributes are those of Snakemake's interface for loggers.
    """

    def __init__(self, inner: logging.Formatter, workflow: Any) -> None:
        super().__init__()
        self.inner = inner
        self.workflow = workflow
        self.shows_logs = getattr(inner, "show_failed_logs", False)
        if self.shows_logs:
            inner.show_failed_logs = False  # type: ignore[attr-defined]  # of the whole log
        self.progress = ""
        self.was_interrupted = False

    def shows(self, record: Any) -> bool:
        """Whether `record` is worth a line."""
        event = getattr(record, "event", None)
        self.was_interrupted |= str(record.msg).startswith(INTERRUPTED)
        if event == "progress":
            self.progress = f"[{record.done} of {record.total} done] "
            return bool(record.done == record.total)
        if event == "job_info":
            return bool(record.rule_msg)  # without a message, it is a target and runs nothing
        if event == "job_error" and record.indent:  # of a group, whose own record is shown
            return not self._goes_on(record.jobid)
        return event not in HIDDEN_EVENTS and not str(record.msg).startswith(HIDDEN_LINES)

    def format(self, record: Any) -> str:
        event = getattr(record, "event", None)
        if event == "job_info":
            return f"{time.strftime('%H:%M:%S')} {self.progress}{record.rule_msg}"
        if event == "job_error":
            return self._format_error(record, record.jobid, record.log, record.rule_msg)
        if event == "group_error":
            jobs = record.job_error_info
            logs = [log for job in jobs for log in job["log"]] + record.aux_logs
            return self._format_error(record, jobs[0]["jobid"], logs, None)
        return self.inner.format(record)

    def _format_error(self, record: Any, number: int, logs: list[str], message: str | None) -> str:
        """One line if the job goes on, else what Snakemake says and the end of the log."""
        job = self._running(number)
        tail = next((lines for log in logs if (lines := last_lines(Path(log)))), [])
        if not tail and logs and (problem := find_full_disk(Path(logs[0]).parent)):
            tail = [f"{problem}"]  # the job could not say it
        if self._goes_on(number):
            ending = "; ".join([*tail[-1:], *(message or "").splitlines()[:1]])
            how = f"ended early ({ending})" if ending else "ended early, without a message"
            name = next(iter(job.jobs)).message if job.is_group() else job.message
            next_try = f"goes on, attempt {job.attempt + 1} of {job.restart_times + 1}"
            if self.was_interrupted or is_asked_to_end(self.workflow):
                next_try = "the next call goes on"
            return f"{time.strftime('%H:%M:%S')} {name}: {how}; {next_try}"
        record = copy.copy(record)
        record.input = record.output = []  # the verdict has thousands of inputs
        record.msg = record.msg if message else ""
        text = self.inner.format(record)
        if not self.shows_logs or getattr(record, "event", None) == "group_error":
            return text
        return "\n".join([text, *(f"    | {line}" for line in _ending(tail))])

    def _running(self, number: int) -> Any:
        """The job with this number, or its group, while it runs; None if there is none."""
        scheduler = getattr(self.workflow, "scheduler", None)
        for job in [*scheduler.running] if scheduler else []:
            if any(member.jobid == number for member in (job.jobs if job.is_group() else [job])):
                return job
        return None

    def _goes_on(self, number: int) -> bool:
        """Whether the job with this number, which has just failed, is started again."""
        job = self._running(number)
        return bool(job and job.attempt <= job.restart_times)


def _ending(log: list[str]) -> list[str]:
    """The lines that say why a job failed: its message, or else the last ones of its log."""
    starts = [number for number, line in enumerate(log) if line.startswith(PREFIX)]
    return log[starts[-1] :] if starts else log[-LOG_LINES:]
