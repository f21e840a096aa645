"""What the jobs of a study ask the scheduler of a cluster for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dmlbench.planning.job_estimates import UNKNOWN_MB, Estimate
from dmlbench.study.cluster import Cluster
from dmlbench.study.run import Run
from dmlbench.study.study import Study
from dmlbench.study.tuning import Trial
from dmlbench.training.run_state import inspect_training
from dmlbench.workflow.resources import FEATURES_MINUTES, PACK_MB, PACK_MINUTES, scores_on_gpu

START_MINUTES = 5
"""Every job gets this much beside its estimate: Snakemake starts twice, and imports are slow."""
STEP_MINUTES = 5
"""Run times are multiples of it."""
MAX_GROWTH = 4
"""The most that a job asks for after it was killed, as a multiple of the first time."""
UNKNOWN_SCORING_SECONDS = 1800.0
"""The estimate for scores of images that nobody has counted."""
MIN_TRAINING_SHARE = 0.5
"""The share of the longest run time that a training has at least, beside its scoring."""
Resources = dict[str, str | int]
"""Name -> value, as Snakemake has them. Its plugin for SLURM reads those that name a place."""


class Request(NamedTuple):
    """What a job asks for."""

    minutes: int
    memory_mb: int


def request_training(
    cluster: Cluster, estimate: Estimate | None, attempt: int = 1, was_killed: bool = False
) -> Request:
    """What a training asks for.

    It goes on from its checkpoint in another job, so its run time may be cut to that of the
    partition. If it is scored in the same job, both together keep within it.

    Args:
        attempt: from 1. Each one asks for more time, as the estimate may be too low.
        was_killed: whether the last attempt ended without saving, as if its memory was too small.
            Then this one asks for more memory too.

    >>> estimate = Estimate(1200.0, 60.0, training_mb=4000, scoring_mb=1500)
    >>> request_training(Cluster(), estimate)
    Request(minutes=45, memory_mb=4000)
    >>> request_training(Cluster(max_minutes=30), estimate)
    Request(minutes=20, memory_mb=4000)
    """
    seconds = estimate.training_seconds if estimate else None
    limit = cluster.max_minutes
    if cluster.score_with_training:
        scoring = request_scoring(cluster, estimate).minutes
        limit = max(int(MIN_TRAINING_SHARE * limit), limit - scoring)
    return _request(cluster, estimate, seconds, limit, attempt, was_killed)


def request_trial(
    cluster: Cluster, estimate: Estimate | None, attempt: int = 1, was_killed: bool = False
) -> Request:
    """What a trial asks for, with all of its folds; arguments as of `request_training`."""
    seconds = estimate.trial_seconds if estimate else None
    return _request(cluster, estimate, seconds, cluster.max_minutes, attempt, was_killed)


def _request(
    cluster: Cluster,
    estimate: Estimate | None,
    seconds: float | None,
    limit: int,
    attempt: int,
    was_killed: bool,
) -> Request:
    """What a job asks for that trains for about `seconds`, and goes on in another job after
    `limit` minutes; None: its time is not known."""
    growth = min(attempt, MAX_GROWTH)
    wanted = limit if seconds is None else _minutes(growth * cluster.time_factor * seconds)
    memory = cluster.memory_mb or (estimate.training_mb if estimate else UNKNOWN_MB)
    return Request(max(1, min(limit, wanted)), memory * (growth if was_killed else 1))


def request_scoring(cluster: Cluster, estimate: Estimate | None, attempt: int = 1) -> Request:
    """What a scoring asks for; `attempt` as in `request_training`."""
    seconds = estimate.scoring_seconds if estimate else None
    if seconds is None:
        seconds = UNKNOWN_SCORING_SECONDS
    limit = cluster.max_minutes
    if cluster.score_with_training:
        limit = max(1, limit - int(MIN_TRAINING_SHARE * limit))
    growth = min(attempt, MAX_GROWTH)
    memory = estimate.scoring_mb if estimate else UNKNOWN_MB
    return Request(min(limit, _minutes(growth * cluster.time_factor * seconds)), growth * memory)


def site_options(cluster: Cluster, needs_gpu: bool) -> Resources:
    """The place of a job and its GPU.

    >>> site_options(Cluster(partition="gpu", cpu_partition="cpu"), needs_gpu=False)
    {'gpu': 0, 'slurm_partition': 'cpu'}
    >>> site_options(Cluster(gpu_request="gres", gpu_type="a100"), needs_gpu=True)
    {'gpu': 0, 'gres': 'gpu:a100:1'}
    """
    as_gres = cluster.gpu_request == "gres"
    gres = ":".join(filter(None, ["gpu", cluster.gpu_type, "1"]))
    partition = cluster.partition if needs_gpu else cluster.cpu_partition or cluster.partition
    options = {
        "gpu": int(needs_gpu and not as_gres),
        "slurm_partition": partition,
        "slurm_account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint if needs_gpu else None,
        "gres": gres if needs_gpu and as_gres else None,
        "gpu_model": cluster.gpu_type if needs_gpu and not as_gres else None,
    }
    return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class ClusterJobs:
    """The resources of the jobs of a study on a cluster.

    Args:
        stores: the folder of the packed images.
        estimates: of `estimate_jobs`, as the jobs were submitted with them.
    """

    study: Study
    stores: Path
    estimates: dict[str, Estimate]

    def training(self, run: Run, attempt: int, is_scored: bool) -> Resources:
        """Of the training of `run`; `is_scored`: whether it is scored in the same job."""
        state = self.study.files.run(run.path).state
        killed = attempt > 1 and was_killed(run.train_key, state)
        cluster = self.study.settings.cluster
        request = request_training(cluster, self.estimates.get(run.cell), attempt, killed)
        needs_gpu = self.trains_on_gpu(run) or (is_scored and self.scores_on_gpu(run))
        return site_options(cluster, needs_gpu) | _training_resources(request)

    def trial(self, trial: Trial, attempt: int) -> Resources:
        """Of a trial."""
        run, cluster = trial.run, self.study.settings.cluster
        state = self.study.files.trial(trial.path).state
        killed = attempt > 1 and was_killed(trial.key, state)
        request = request_trial(cluster, self.estimates.get(run.cell), attempt, killed)
        return site_options(cluster, self.trains_on_gpu(run)) | _training_resources(request)

    def scoring(self, run: Run, attempt: int, is_alone: bool) -> Resources:
        """Of the scoring of `run`; `is_alone`: whether it is not in the job of its training."""
        cluster = self.study.settings.cluster
        request = request_scoring(cluster, self.estimates.get(run.cell), attempt)
        # the jobs of a group must name the same place
        needs_gpu = self.scores_on_gpu(run) or (not is_alone and self.trains_on_gpu(run))
        numbers: Resources = {"runtime": request.minutes, "mem_mb": request.memory_mb}
        return site_options(cluster, needs_gpu) | numbers

    def packing(self) -> Resources:
        """Of a job that packs images."""
        cluster = self.study.settings.cluster
        minutes = min(PACK_MINUTES, cluster.max_minutes)
        return site_options(cluster, needs_gpu=False) | {"runtime": minutes, "mem_mb": PACK_MB}

    def features(self) -> Resources:
        """Of a job that computes the features of a frozen backbone."""
        cluster = self.study.settings.cluster
        minutes = min(FEATURES_MINUTES, cluster.max_minutes)
        numbers: Resources = {"runtime": minutes, "mem_mb": cluster.memory_mb or UNKNOWN_MB}
        return site_options(cluster, cluster.device == "gpu") | numbers

    def trains_on_gpu(self, run: Run) -> bool:
        return run.uses_model and self.study.settings.cluster.device == "gpu"

    def scores_on_gpu(self, run: Run) -> bool:
        on_gpu = self.study.settings.cluster.device == "gpu"
        return on_gpu and scores_on_gpu(run, self.stores / run.tested.store)


def site_names(cluster: Cluster) -> set[str]:
    """The resources that some job of the study has by `site_options`."""
    return {*site_options(cluster, needs_gpu=True), *site_options(cluster, needs_gpu=False)}


def was_killed(key: str, state: Path) -> bool:
    """Whether the last attempt of the training under `key` ended without saving; `state` is its
    folder."""
    unfinished = inspect_training(state, key)
    return unfinished is not None and unfinished.state != "stopped"


def _training_resources(request: Request) -> Resources:
    """A job that trains also knows its time limit, before which it saves."""
    return {
        "runtime": request.minutes,
        "mem_mb": request.memory_mb,
        "time_limit": f"--max-minutes {request.minutes}",
    }


def _minutes(seconds: float) -> int:
    """Whole minutes, with the time that every job needs to start."""
    minutes = START_MINUTES + seconds / 60
    return STEP_MINUTES * -(-int(minutes + 0.999) // STEP_MINUTES)
