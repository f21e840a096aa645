"""The jobs that failed when they were last tried, found from their logs.

Results of runs have their own status; see status.py. These are the other jobs: downloads, packing,
the table, MLflow. A job that failed leaves its log and no output. As soon as the output is there,
whoever made it, the failure is over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dmlbench.datasets import load
from dmlbench.datasets.archives.hub import staged_files
from dmlbench.datasets.archives.spec import HubFiles, Sources, archive_groups
from dmlbench.datasets.store.duplicates_file import duplicates_path, search_target
from dmlbench.datasets.store.format import MANIFEST_FILE
from dmlbench.study.features import features_file
from dmlbench.study.study import Study
from dmlbench.training.run_state import MAX_SILENCE
from dmlbench.workflow.job_log import has_succeeded, last_words, read_failure
from dmlbench.workflow.study_lock import Worker, find_worker


class FailedJob(NamedTuple):
    """A job that failed when it was last tried."""

    rule: str
    target: str
    """The store or the weights that it makes, or the cell that it chooses for; empty if the study
    has one such job."""
    reason: str
    log: Path

    @property
    def name(self) -> str:
        """The rule, and what it works on."""
        return f"{self.rule} {self.target}".rstrip()


class _Job(NamedTuple):
    rule: str
    target: str
    log: Path
    output: Path


def find_failed_jobs(study: Study, data: Path, is_over: bool = False) -> list[FailedJob]:
    """The jobs of `study` that failed and that nobody has repaired since.

    Args:
        data: the folder of archives, packed stores and weights.
        is_over: the process that works on the study asks, and all of its jobs have ended.
    """
    worker = None if is_over else find_worker(study)
    failed = []
    for job in _jobs(study, data):
        if job.output.exists() or not job.log.is_file():
            continue
        if reason := why_failed(job.log, worker):
            failed.append(FailedJob(job.rule, job.target, reason, job.log))
    return failed


def why_failed(log: Path, worker: Worker | None) -> str | None:
    """Why the job of `log` failed; None if it succeeded, may still run, or will be tried again.

    Args:
        log: the log of a job whose output is missing.
        worker: the process that works on the study now, if any.
    """
    written = log.stat().st_mtime
    if worker and worker.is_sure and written < worker.since:  # the log is of an earlier call
        return None
    if reason := read_failure(log):
        return reason
    is_quiet = time.time() - written > MAX_SILENCE
    may_run = worker and (worker.is_sure or not is_quiet)
    if may_run or has_succeeded(log):
        return None
    words = last_words(log)
    return "it ended without a message" + (f"; its last line: {words}" if words else "")


def _jobs(study: Study, data: Path) -> Iterator[_Job]:
    files = study.files
    for store, run in study.stores.items():
        folder = data / "stores" / store
        packed = folder / MANIFEST_FILE
        if run.has_archives and not packed.exists():
            log, note = files.fetching_log(store), folder / "archives.json"
            sources = load(run.data.type, run.data.options).SOURCES
            if not _were_put_in_place(sources, data / "archives", log):
                yield _Job("fetch_archives", store, log, note)
        yield _Job("pack_store", store, files.packing_log(store), packed)
    for pair in dict.fromkeys(run.searched for run in study.runs.values()):
        searched = duplicates_path(data / "stores", *pair)
        yield _Job("find_duplicates", search_target(*pair), files.duplicates_log(*pair), searched)
    started = {run.weights: None for run in study.runs.values() if run.uses_model and run.weights}
    for weights in started:
        file = data / "weights" / f"{weights}.safetensors"
        yield _Job("fetch_weights", weights, files.weights_log(weights), file)
    for path in study.features:
        computed = features_file(data / "stores", path)
        yield _Job("compute_features", path, files.features_log(path), computed)
    for cell in study.tuned_cells:
        yield _Job("choose", cell, files.choice(cell).log, files.chosen(cell))
    for group in study.galleries:
        pictures = files.gallery(group)
        yield _Job("draw_pictures", group, pictures.log, pictures.made_of)
    yield _Job("build_leaderboard", "", files.leaderboard_log, files.table)
    if study.settings.tracking:
        yield _Job("track", "", files.tracking_log, files.tracked)


def _were_put_in_place(sources: Sources, archives: Path, log: Path) -> bool:
    """Whether all archives are there, and somebody changed one since `log` was written."""
    if isinstance(sources, HubFiles):
        groups = [[*staged_files(sources, archives).values()]]
    else:
        groups = [[archives / name for name in group] for group in archive_groups(sources)]
    changed = log.stat().st_mtime if log.is_file() else 0.0
    for files in groups:
        if files and all(file.is_file() for file in files):
            # a file that was moved keeps its st_mtime
            return max(file.stat().st_ctime for file in files) > changed
    return False
