"""`dmlbench status` in a terminal: printed once, or redrawn until all runs have finished."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

from dmlbench.study.study import Study
from dmlbench.utils.files import data_folder
from dmlbench.workflow.driver import find_driver
from dmlbench.workflow.failed_jobs import find_failed_jobs
from dmlbench.workflow.status import FINISHED, RunStatus, format_statuses, read_statuses

PAUSE_FACTOR = 10
"""A watcher waits at least this many times as long as reading the status took."""


def show_status(study: Study, interval: float | None) -> None:
    """Print how far `study` is.

    Args:
        interval: print again every this many seconds, until all runs have finished; None: print
            once. On a terminal, the new text replaces the last one.
    """
    if interval is None:
        print(*_status_lines(study, read_statuses(study)), sep="\n", flush=True)
    elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        screen = Console(highlight=False)
        with Live(console=screen, auto_refresh=False, vertical_overflow="crop") as live:
            for lines in _watch(study, interval):
                text = Text("\n".join(lines), no_wrap=True, overflow="crop")
                live.update(text, refresh=True)
    else:
        for number, lines in enumerate(_watch(study, interval)):
            print(*([""] * bool(number)), *lines, sep="\n", flush=True)


def _watch(study: Study, interval: float) -> Iterator[list[str]]:
    """The lines of the status every `interval` seconds, until all runs have finished."""
    while True:
        start = time.monotonic()
        statuses = read_statuses(study)
        seconds = time.monotonic() - start
        yield _status_lines(study, statuses)
        if all(status.state in FINISHED for status in statuses):
            return
        time.sleep(max(interval, PAUSE_FACTOR * seconds))


def _status_lines(study: Study, statuses: list[RunStatus]) -> list[str]:
    driver = find_driver(study)
    notes = [f"`dmlbench submit` works on it: {driver.describe()}"] if driver else []
    return format_statuses(study, statuses, find_failed_jobs(study, data_folder()), notes)
