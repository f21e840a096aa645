"""The driver of a study: the process of `dmlbench submit` that starts Snakemake again and again.

Its file, results/<study>/driver.json, says who it is. The driver holds a kernel lock on it.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, ValidationError

from dmlbench.study.study import Study
from dmlbench.utils.errors import WrongEnvironment
from dmlbench.utils.locks import try_lock

HEARTBEAT = 60.0
"""A driver writes its file at least this often."""
MAX_SILENCE = 5 * HEARTBEAT
"""A driver on another machine that did not write its file for this long may be dead."""


class Driver(BaseModel):
    """What driver.json holds."""

    pid: int
    host: str
    since: float
    """When it began, in seconds since 1970."""
    starts: int = 0
    """How often it has started Snakemake."""
    doing: str = "begins"
    """What it does now, in words."""
    log: str

    def describe(self) -> str:
        """A line for a person."""
        since = datetime.fromtimestamp(self.since).isoformat(" ", "minutes")
        return (
            f"process {self.pid} on {self.host}, since {since}, start {self.starts} of Snakemake, "
            f"{self.doing}; log: {self.log}"
        )


def find_driver(study: Study) -> Driver | None:
    """The driver that works on `study`; None if there is none."""
    try:
        with study.files.driver.open() as file:
            is_held = not try_lock(file, study.files.driver, shared=True)
            driver = Driver.model_validate_json(file.readline())
            quiet = time.time() - os.fstat(file.fileno()).st_mtime
    except (OSError, ValidationError, WrongEnvironment):
        return None
    if is_held:
        return driver
    # the kernel lock of a process on another machine may be invisible here
    is_elsewhere = driver.host != platform.node()
    return driver if is_elsewhere and quiet < MAX_SILENCE else None


class DriverFile:
    """driver.json of the driver that runs in this process."""

    def __init__(self, file: TextIO, log: Path) -> None:
        self._file = file
        self._written = 0.0
        self.driver = Driver(pid=os.getpid(), host=platform.node(), since=time.time(), log=str(log))

    def update(self, **changes: str | int) -> None:
        """Write what has changed, as `doing`; and now and then that the driver lives."""
        changed = self.driver.model_copy(update=changes)
        if changed == self.driver and time.monotonic() - self._written < HEARTBEAT:
            return
        self.driver, self._written = changed, time.monotonic()
        # in place: a file that is renamed here would lose its lock. A reader reads one line
        with contextlib.suppress(OSError):  # a full disk must not end the driver
            self._file.seek(0)
            self._file.write(changed.model_dump_json() + "\n")
            self._file.truncate()
            self._file.flush()


@contextlib.contextmanager
def hold_driver_file(study: Study, log: Path) -> Iterator[DriverFile | None]:
    """Make this process the driver of `study`; yield None if another one is it."""
    study.files.driver.parent.mkdir(parents=True, exist_ok=True)
    if find_driver(study):
        yield None
        return
    study.files.driver.touch()
    with study.files.driver.open("r+") as file:
        if not try_lock(file, study.files.driver):
            yield None
            return
        try:
            driver_file = DriverFile(file, log)
            driver_file.update()
            yield driver_file
        finally:
            study.files.driver.unlink(missing_ok=True)
