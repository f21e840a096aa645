"""Where the jobs of a study are: in the queue of a scheduler, on a node, or gone.

Snakemake notes which job makes which output, in .snakemake/incomplete. The note holds the number of
the job until it begins on its node. The scheduler says which jobs are there.
"""

from __future__ import annotations

import os
import platform
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dmlbench.training.run_state import UnfinishedTraining
from dmlbench.utils.files import read_json_if_whole
from dmlbench.workflow.scheduler import ClusterJob, has_scheduler, read_jobs

NOTES = Path(".snakemake/incomplete")
PATIENCE = 2.0
"""Seconds that the scheduler has to answer: `dmlbench status` does not wait for it."""


@dataclass(frozen=True)
class SubmittedJobs:
    """What is known about the jobs that were submitted from this folder."""

    jobs: dict[str, ClusterJob] | None = None
    """Number -> job that waits or runs; None: not known."""
    notes: dict[str, Path] = field(default_factory=dict)
    """Output -> Snakemake's note about the job that makes it."""

    @classmethod
    def read(cls) -> SubmittedJobs:
        """Ask the scheduler, by one call; nothing is known without one."""
        if not has_scheduler():
            return cls()
        jobs = read_jobs(PATIENCE)
        return cls(None if jobs is None else {job.number: job for job in jobs}, _read_notes())

    def correct(self, training: UnfinishedTraining) -> UnfinishedTraining:
        """The training, with the state that the scheduler knows better.

        The lock of a trainer on another machine may be invisible here.
        """
        scheduler, _, number = (training.job or "").partition(":")
        if self.jobs is None or scheduler != "slurm" or training.host == platform.node():
            return training
        if training.state not in ("running", "silent"):
            return training
        job = self.jobs.get(number)
        return training._replace(state="running" if job and not job.is_pending else "dead")

    def place(self, *outputs: Path) -> Literal["queued", "starting", "gone"] | None:
        """Where the job is that makes one of `outputs`; None if there is none, or not known."""
        note = next((self.notes[str(file)] for file in outputs if str(file) in self.notes), None)
        if self.jobs is None or note is None:
            return None
        content = read_json_if_whole(note)
        number = content.get("external_jobid") if isinstance(content, dict) else None
        if job := self.jobs.get(str(number)):
            return "queued" if job.is_pending else "starting"
        return "gone"


def _read_notes() -> dict[str, Path]:
    """Output -> Snakemake's note about the job that makes it."""
    notes = {}
    for folder, _, names in os.walk(NOTES):
        # Snakemake cuts long names into folders, which begin with @
        start = "".join(part[1:] for part in Path(folder).relative_to(NOTES).parts)
        for name in names:
            try:
                output = urlsafe_b64decode(start + name).decode()
            except ValueError:  # a file of another kind
                continue
            notes[output] = Path(folder, name)
    return notes
