"""What Snakemake does with the files and the retries of a job that failed.

Snakemake removes the outputs of a job before it starts, and after it has failed, since they may be
half-made. Ours never are: each is renamed into place when it is whole. And the output of a job that
waits may be made meanwhile by another process: the images of a study beside this one, or the result
of a trainer whose Snakemake was killed. So no output is removed here, and none counts as
incomplete. The next call runs the job again if its output is missing, or is not the planned one by
its key (planning/outdated.py).
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

from snakemake.common import overwrite_function_params
from snakemake.jobs import GroupJob, Job
from snakemake.resources import Resource

from dmlbench.utils.disk import find_full_disk
from dmlbench.utils.log_lines import STOPPED
from dmlbench.workflow.job_log import read_failure

_postprocess = Job.postprocess
_planned_retries = Job.restart_times
_shellcmd = Job.shellcmd
_started = time.time()


def adapt_jobs() -> None:
    """Let Snakemake keep the files of all jobs, and retry only those that may succeed then.

    In a study of thousands of jobs, a dry run also leaves out what nobody sees: shell commands that
    are not shown, and the same question about the parameters of a function for each resource of
    each job. Together they take a fifth of its time.

    While jobs run, it looks only when there may be something new.
    """
    from snakemake.dag import DAG  # it imports itself if it is the first of Snakemake's modules
    from snakemake.scheduling.job_scheduler import JobScheduler

    DAG.check_incomplete = _trust_outputs
    Job.remove_existing_output = _keep_files
    Job.postprocess = _postprocess_if_succeeded
    Job.restart_times = property(_useful_retries)
    GroupJob.restart_times = property(_useful_retries_of_group)
    Job.shellcmd = property(_shown_command)
    JobScheduler._schedule_reevalutation = partialmethod(
        _look_again, JobScheduler._schedule_reevalutation
    )
    _look_up_parameters_once()


def _look_up_parameters_once() -> None:
    """Let Snakemake look up the parameters of `Resource.evaluate` once, and not at each call."""
    overwrite_function_params(Resource.evaluate, inspect.signature(Resource.evaluate).parameters)


def is_asked_to_end(workflow: Any) -> bool:
    """Whether Snakemake ends because of SIGTERM, or is to start no more jobs."""
    return bool(workflow.scheduler and workflow.scheduler._user_kill)


def has_failed(workflow: Any) -> bool:
    """Whether jobs failed for good and all others have ended: nobody stopped Snakemake."""
    scheduler = workflow.scheduler
    return bool(scheduler.failed and not scheduler.running and not is_asked_to_end(workflow))


def was_left_out(workflow: Any, rule: str) -> bool:
    """Whether the job of `rule` was planned, and was not started because others failed."""
    unfinished = workflow.dag.needrun_jobs()
    return any(job.rule.name == rule and job not in workflow.scheduler.failed for job in unfinished)


async def _trust_outputs(dag: Any) -> None:
    """Do nothing, in place of looking for outputs of jobs that had not ended when Snakemake was
    killed."""


async def _keep_files(job: Job) -> None:
    """Do nothing, in place of removing the outputs and logs of the last time."""


async def _postprocess_if_succeeded(job: Job, *args: Any, error: bool = False, **more: Any) -> None:
    """Only forget that a job began if it failed, in place of removing its outputs.

    The dates of outputs are not compared with those of inputs: one input of a pending job is always
    newer (planning/outdated.py), and clocks of machines differ.
    """
    if error:  # what is there is whole: it is not to be made again for being "incomplete"
        job.dag.workflow.persistence.cleanup(job)
    else:
        await _postprocess(job, *args, **more | {"check_output_mtime": False})


def _look_again(scheduler: Any, look_again: Callable[[Any, float], None], seconds: float) -> None:
    """Look in some seconds which jobs can start, if the limit of jobs per second held some back.

    Snakemake looks every second, whatever limit there is, at each job that is ready: with 500 of
    them, a third of a core. When a job ends, it looks anyway.
    """
    limiter = scheduler.job_rate_limiter
    if limiter is None or not limiter.get_free_jobs():
        look_again(scheduler, seconds)


def _shown_command(job: Job) -> str | None:
    """The shell command of `job`; None in a dry run that does not show it."""
    workflow = job.dag.workflow
    if workflow.dryrun and not workflow.output_settings.printshellcmds:
        return None
    command: str | None = _shellcmd.fget(job)
    return command


def _useful_retries(job: Job) -> int:
    """How often a job that fails is started again: never, if its log says why it failed.

    A job that was killed, or that stopped to be continued, leaves no such message.
    """
    return 0 if _said_why(job) else int(_planned_retries.fget(job))


def _useful_retries_of_group(group: GroupJob) -> int:
    """The same for jobs that are submitted together: the whole group is started again."""
    if any(_said_why(job) for job in group.jobs):
        return 0
    return max(_useful_retries(job) for job in group.jobs)


def _said_why(job: Job) -> bool:
    """Whether the log of `job` says why it failed, or could not for want of room."""
    logs = [Path(log) for log in job.log]
    return any(_read_new_failure(log) or find_full_disk(log.parent) for log in logs)


def _read_new_failure(log: Path) -> str | None:
    """Why the job of `log` failed since this process started; None if it did not say."""
    try:
        is_new = log.stat().st_mtime >= _started
    except OSError:
        return None
    failure = read_failure(log) if is_new else None
    return None if failure == STOPPED else failure
