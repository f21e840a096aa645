"""The scheduler's job that this process runs in: its id, its end, and how an earlier one ended.

Only environment variables and SLURM's own commands are read. Without a scheduler there is no job.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from dmlbench.utils.errors import WrongEnvironment

JOB_END = "DMLBENCH_JOB_END"
"""The variable by which any scheduler says when the job ends, in seconds since 1970."""
JOB_IDS = {
    "slurm": "SLURM_JOB_ID",
    "pbs": "PBS_JOBID",
    "lsf": "LSB_JOBID",
    "flux": "FLUX_JOB_ID",
    "oar": "OAR_JOB_ID",
}
"""Scheduler -> the variable that holds the id of a job."""
PATIENCE = 20.0
"""Seconds that a command of the scheduler may take."""
_TIME_LEFT = re.compile(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)")


def current_job(environ: Mapping[str, str] = os.environ) -> str | None:
    """Scheduler and id of the job that this process runs in; None if it runs in none.

    >>> current_job({"SLURM_JOB_ID": "17"}), current_job({})
    ('slurm:17', None)
    """
    for scheduler, variable in JOB_IDS.items():
        if job := environ.get(variable):
            return f"{scheduler}:{job}"
    if environ.get("JOB_ID") and "SGE_O_HOST" in environ:  # others use this name for other things
        return f"sge:{environ['JOB_ID']}"
    return None


def job_end(environ: Mapping[str, str] = os.environ) -> float | None:
    """When the job of this process ends, in seconds since 1970; None if nobody says it.

    SLURM is asked once, by `squeue`, if no variable holds it.

    Raises:
        WrongEnvironment: DMLBENCH_JOB_END is no time.

    >>> job_end({"DMLBENCH_JOB_END": "1800000000"}), job_end({})
    (1800000000.0, None)
    """
    if value := environ.get(JOB_END):
        if not re.fullmatch(r"\d{1,12}(\.\d+)?", value):
            allowed = "It is the time when the job ends, in seconds since 1970."
            raise WrongEnvironment(f"{JOB_END}={value}: {allowed} Set it, or unset it.")
        return float(value)
    if (value := environ.get("SLURM_JOB_END_TIME", "")).isdecimal():
        return float(value)
    if job := environ.get("SLURM_JOB_ID"):
        answer = _ask("squeue", "-h", "-j", job, "-o", "%L", environ=environ)
        if left := _TIME_LEFT.fullmatch(answer.strip()):  # else UNLIMITED, or no answer
            days, hours, minutes, seconds = (int(part or 0) for part in left.groups())
            return time.time() + 60 * (60 * (24 * days + hours) + minutes) + seconds
    return None


def job_state(job: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """How SLURM says that a job stands or has ended, as "OUT_OF_MEMORY"; None if it does not.

    Args:
        job: as `current_job` gives it.
    """
    scheduler, _, number = job.partition(":")
    if scheduler != "slurm" or not re.fullmatch(r"[\w.\[\]-]+", number):
        return None
    answer = _ask("scontrol", "-o", "show", "job", number, environ=environ)
    if state := re.search(r"\bJobState=(\w+)", answer):
        return state[1]
    # SLURM forgets finished jobs after some minutes; its accounting, if there is one, does not
    command = ("sacct", "-n", "-X", "-P", "-j", number, "-o", "State")
    states = _ask(*command, environ=environ).split()
    return states[0] if states else None


def _ask(*command: str, environ: Mapping[str, str]) -> str:
    """What a command prints; empty if it fails or is not there."""
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, env=dict(environ)
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout if answer.returncode == 0 else ""


def oom_kills() -> int:
    """How many processes the kernel of this machine has killed for want of memory; 0: unknown."""
    try:
        statistics = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    count = re.search(r"^oom_kill (\d+)$", statistics, re.MULTILINE)
    return int(count[1]) if count else 0
