"""What the scheduler of a cluster says about this user's jobs. Only SLURM is asked.

The scheduler may be away, or there may be none. Then the answer is None: not known. No caller takes
that for "there are no jobs".
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PATIENCE = 15.0
"""Seconds that a command has to answer. SLURM's own commands give up after 9."""
SEPARATOR = "\x1f"
"""Between two columns: no name and no path has it."""
COLUMNS = ("%A", "%T", "%r", "%j", "%Z")
"""Of squeue: number, state, reason, name, working directory."""
HELD_FOR_EVER = "launch_failed_requeued_held"
"""Why SLURM holds a job that it could not start on its node, until somebody releases it."""
LONGEST_POLL = 240
"""Seconds between two questions of Snakemake's plugin, at most, with a reserve."""
PREFIX = "dmlbench"
"""Begins the names of the jobs that Snakemake submits; the profile for SLURM sets it."""


class ClusterJob(NamedTuple):
    """A job that waits, runs or is about to end."""

    number: str
    state: str
    """SLURM's: PENDING, RUNNING, COMPLETING, ..."""
    reason: str
    """Why it is in this state, in SLURM's words."""
    name: str
    folder: Path
    """Its working directory."""

    @property
    def is_pending(self) -> bool:
        return self.state == "PENDING"

    @property
    def is_held_for_ever(self) -> bool:
        return self.reason.replace(" ", "_") == HELD_FOR_EVER

    @property
    def prefix(self) -> str:
        """The beginning of its name, before the id of Snakemake's call."""
        return self.name.rpartition("_")[0]


def has_scheduler() -> bool:
    """Whether this machine has the commands of SLURM."""
    return shutil.which("squeue") is not None


def read_jobs(patience: float = PATIENCE) -> list[ClusterJob] | None:
    """The jobs of this user that have not ended, by one call; None: not known.

    Args:
        patience: seconds that the scheduler has to answer.
    """
    options = ("--noheader", f"--user={os.getuid()}", f"--format={SEPARATOR.join(COLUMNS)}")
    answer = _ask("squeue", *options, patience=patience)
    if answer is None:
        return None
    try:
        return parse_jobs(answer)
    except ValueError:  # a message, or half an answer
        return None


def parse_jobs(lines: str) -> list[ClusterJob]:
    """The jobs in the output of squeue.

    Raises:
        ValueError: a line is no job.

    >>> line = SEPARATOR.join(["7", "RUNNING", "None", "dmlbench-cub_1234", "/home/me"])
    >>> parse_jobs(line)[0].prefix
    'dmlbench-cub'
    """
    jobs = []
    for line in lines.splitlines():
        number, state, reason, name, folder = line.split(SEPARATOR)
        jobs.append(ClusterJob(number, state, reason, name, Path(folder)))
    return jobs


def status_command() -> str | None:
    """The command by which Snakemake's plugin is to ask about jobs; None: not known.

    It is squeue, if SLURM remembers jobs that ended until the plugin asks the next time: with
    sacct, the plugin waits for ever for a job that somebody cancelled. Where SLURM forgets sooner,
    it is sacct, if SLURM keeps accounts.
    """
    settings = _ask("scontrol", "show", "config")
    if settings is None:
        return None
    age = re.search(r"^MinJobAge\s*=\s*(\d+)", settings, re.MULTILINE)
    kind = re.search(r"^AccountingStorageType\s*=\s*(\S+)", settings, re.MULTILINE)
    has_accounts = kind and kind[1] not in ("accounting_storage/none", "(null)")
    forgets = age and int(age[1]) < LONGEST_POLL
    return "sacct" if has_accounts and forgets else "squeue"


def cancel(jobs: Iterable[ClusterJob]) -> bool:
    """Cancel `jobs`; False if the scheduler did not answer.

    SLURM sends SIGTERM first, so a training saves its state.
    """
    numbers = [job.number for job in jobs]
    answers = [
        _ask("scancel", *numbers[first : first + 500]) for first in range(0, len(numbers), 500)
    ]
    return None not in answers


def _ask(*command: str, patience: float = PATIENCE) -> str | None:
    """What a command of SLURM prints; None if it is missing, fails, or does not answer in time."""
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=patience
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None
