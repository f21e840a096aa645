"""`dmlbench submit --dry-run`: the jobs that would be submitted, and what they ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dmlbench.planning.job_estimates import estimate_jobs
from dmlbench.planning.job_requests import ClusterJobs, Resources
from dmlbench.planning.pending import find_pending
from dmlbench.study.study import Study
from dmlbench.utils.text import count_of, format_duration
from dmlbench.workflow.status import as_table

DEFAULT = "(default)"
"""The name that is shown for the partition that the cluster chooses."""
LOCAL_RULES = (
    "fetch_archives",
    "fetch_weights",
    "choose",
    "build_leaderboard",
    "track",
    "verdict",
)
"""Rules that run where the study is submitted."""


@dataclass
class Load:
    """What the jobs in a partition ask for."""

    jobs: int = 0
    minutes: int = 0
    gpu_minutes: int = 0
    longest: int = 0
    """Minutes."""
    memory_mb: int = 0
    """Of the job that asks for most."""

    def add(self, resources: Resources) -> None:
        minutes = int(resources["runtime"])
        self.jobs += 1
        self.minutes += minutes
        self.gpu_minutes += minutes * (int(resources.get("gpu", 0)) or "gres" in resources)
        self.longest = max(self.longest, minutes)
        self.memory_mb = max(self.memory_mb, int(resources["mem_mb"]))


def show_submission(study: Study, stores: Path) -> None:
    """Print what `dmlbench submit` would submit for `study`.

    Args:
        stores: the folder of the packed images.
    """
    print(*describe_submission(study, stores), sep="\n")


def describe_submission(study: Study, stores: Path) -> list[str]:
    """Lines that name the jobs by partition, and their hours."""
    loads: dict[str, Load] = {}
    for resources in _requests(study, stores):
        loads.setdefault(str(resources.get("slurm_partition", DEFAULT)), Load()).add(resources)
    counts = find_pending(study, stores).counts
    local = [f"{rule} {counts[rule]}" for rule in LOCAL_RULES if rule in counts]
    total = sum(load.jobs for load in loads.values())
    lines = [f"{study.name}: would submit {count_of(total, 'job')}"]
    if loads:
        header = ("partition", "jobs", "hours", "GPU hours", "longest", "memory")
        rows = [
            (
                name,
                f"{load.jobs:,}",
                f"{load.minutes / 60:,.1f}",
                f"{load.gpu_minutes / 60:,.1f}",
                format_duration(60 * load.longest),
                f"{load.memory_mb:,} MB",
            )
            for name, load in sorted(loads.items())
        ]
        lines += ["", *as_table([header, *rows]), ""]
        lines.append("Hours are those that the jobs ask for; most end earlier.")
    if local:
        lines.append(f"On this machine: {', '.join(local)}.")
    return lines


def _requests(study: Study, stores: Path) -> Iterator[Resources]:
    """What each job asks for in its first attempt."""
    pending = find_pending(study, stores)
    jobs = ClusterJobs(study, stores, estimate_jobs(study, stores))
    for _ in pending.stores:
        yield jobs.packing()
    for _ in pending.galleries:
        yield jobs.packing()
    for path in pending.trials:
        yield jobs.trial(study.trials[path], 1)
    together = study.settings.cluster.score_with_training
    for path in pending.train:
        run = study.runs[path]
        request = jobs.training(run, 1, is_scored=together)
        if together:
            scoring = jobs.scoring(run, 1, is_alone=False)
            request |= {
                "runtime": int(request["runtime"]) + int(scoring["runtime"]),
                "mem_mb": max(int(request["mem_mb"]), int(scoring["mem_mb"])),
            }
        yield request
    for path in pending.evaluate:
        if not together or path not in pending.train:
            yield jobs.scoring(study.runs[path], 1, is_alone=True)
