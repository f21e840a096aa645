"""What a person sees of Snakemake: one line for each job, and failed jobs with their log.

Snakemake's own output has five lines for each job, and among them the names of all files that are
missing. Its log file, `.snakemake/log/`, keeps them.
"""

from __future__ import annotations

import copy
import logging
import time
from typing import Any

HIDDEN_EVENTS = frozenset({"job_started", "job_finished", "resources_info"})
HIDDEN_LINES = (
    "Select jobs to execute",
    "Using shell: ",
    "Conda environments: ignored",
    "Cannot restore ",  # no file of a failed job is to be restored: see `update` in the rules
    "RuleException:\nCalledProcessError in file ",  # the failed job's own lines follow
)


def shorten_output(logger: logging.Logger) -> None:
    """Let what `logger` writes to the terminal have one line for each job.

    Only Snakemake's own handler is changed; with another one, as of `--logger`, nothing is. With
    `--verbose`, nothing is either.
    """
    for handler in logger.handlers:
        if handler.name == "DefaultStreamHandler" and not logger.isEnabledFor(logging.DEBUG):
            lines = OneLinePerJob(handler.formatter or logging.Formatter())
            handler.setFormatter(lines)
            handler.addFilter(lines.shows)


class OneLinePerJob(logging.Formatter):
    """Formats the records of Snakemake's jobs, and leaves all others to `inner`.

    The kind of a record and its other attributes are those of Snakemake's interface for loggers.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self.inner = inner
        self.progress = ""

    def shows(self, record: Any) -> bool:
        """Whether `record` is worth a line."""
        event = getattr(record, "event", None)
        if event == "progress":
            self.progress = f"[{record.done} of {record.total} done] "
            return bool(record.done == record.total)
        if event == "job_info":
            return bool(record.rule_msg)  # without a message, it is a target and runs nothing
        return event not in HIDDEN_EVENTS and not str(record.msg).startswith(HIDDEN_LINES)

    def format(self, record: Any) -> str:
        event = getattr(record, "event", None)
        if event == "job_info":
            return f"{time.strftime('%H:%M:%S')} {self.progress}{record.rule_msg}"
        if event == "job_error":
            record = copy.copy(record)
            record.input = record.output = []  # the verdict has thousands of inputs
        return self.inner.format(record)
