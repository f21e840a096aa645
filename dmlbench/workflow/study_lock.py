"""The lock of a study: only one process at a time works on it."""

from __future__ import annotations

import os
import platform
import re
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TextIO

from dmlbench.study.study import Study
from dmlbench.utils.disk import disk_error
from dmlbench.utils.errors import StudyError, WrongEnvironment
from dmlbench.utils.files import read_json_if_whole, write_json
from dmlbench.utils.locks import try_lock

_locks: list[TextIO] = []
"""The locked files. They stay open, and so locked, as long as this process lives."""

PATIENCE = 0.5
"""Seconds: `find_worker` may hold the lock for a moment."""


class Worker(NamedTuple):
    """The process that works on a study."""

    since: float
    """When it began, in seconds since 1970."""
    is_sure: bool
    """False: it was on another machine, whose lock may be invisible here."""
    pid: int | None = None
    """Its number, if it is on this machine."""


def find_worker(study: Study) -> Worker | None:
    """The process that works on `study`; None if there is none."""
    try:
        with study.files.lock.open() as lock:
            since, holder = os.fstat(lock.fileno()).st_mtime, lock.read()
            if not try_lock(lock, study.files.lock, shared=True):
                return Worker(since, is_sure=True, pid=_pid_here(holder))
    except (OSError, WrongEnvironment):  # there is no lock, or the disk has no locks
        return None
    host = re.search(r" on (.*), since ", holder)
    is_here = host is None or host[1] == platform.node()
    return None if is_here else Worker(since, is_sure=False)


def _pid_here(holder: str) -> int | None:
    """The process that the text of a lock names, if it is on this machine."""
    process = re.match(r"process (\d+) on (.*), since ", holder)
    return int(process[1]) if process and process[2] == platform.node() else None


def lock_study(study: Study) -> None:
    """Lock `study` for this process, and write its settings to study.json, which the jobs read.

    This is a kernel lock. Snakemake's own lock outlives a killed process, and then somebody has to
    unlock it by hand.

    Raises:
        StudyError: another process works on this study, or its folder cannot be created.
        WrongEnvironment: the file system has no locks.
        DiskError: the disk is full, read-only or broken.
    """
    try:
        _lock(study)
    except OSError as error:
        raise (disk_error(error, study.folder) or error) from None


def _lock(study: Study) -> None:
    try:
        study.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if disk_error(error, study.folder):
            raise
        message = f"this folder cannot be created ({error.strerror}): rename the study."
        raise StudyError(str(study.folder), [message]) from None
    lock = study.files.lock.open("a+")
    if not _acquire(lock):
        lock.seek(0)
        message = f"{lock.read().strip()} works on it: wait for it, or stop it."
        raise StudyError(str(study.folder), [message]) from None
    lock.truncate(0)
    now = datetime.now().isoformat(timespec="seconds")
    lock.write(f"process {os.getpid()} on {platform.node()}, since {now},\n")
    lock.flush()
    _locks.append(lock)
    snapshot, settings = study.files.snapshot, study.settings.model_dump(mode="json")
    if read_json_if_whole(snapshot) != settings:
        write_json(snapshot, settings)


def _acquire(lock: TextIO) -> bool:
    """Whether this process could lock `lock` for itself."""
    deadline = time.monotonic() + PATIENCE
    while not try_lock(lock, Path(lock.name)):
        if time.monotonic() > deadline:
            return False
        time.sleep(PATIENCE / 10)
    return True
