"""The jobs that `snakemake` would run now, and why, found from the result files alone.

The workflow asks this module too (see workflow/rules/common.smk), so Snakemake runs what is pending
here. Only the content of the files counts, not their dates: a job is pending if its output has
another key than the planned one, is damaged, or belongs to other inputs than those that are there.
Embeddings, histories and artefacts that are missing are no reason to run, until a job needs them.

`find_pending` takes three steps:

1. `find_changed`: the jobs whose output is there and is not the planned one;
2. `add_downstream`: the jobs that come after pending jobs;
3. `add_missing`: the jobs that pending jobs need and whose output is missing.

It repeats the second and third until they add nothing, so their order does not change which jobs
are found. It only changes the reason that is shown for a job that both would add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dmlbench.datasets.store.format import MANIFEST_FILE
from dmlbench.planning.reasons import (
    AFTER_OTHERS,
    AFTER_TRAINING,
    Reason,
    RunResults,
    why_leaderboard,
    why_track,
    why_verdict,
)
from dmlbench.study.study import Study


@dataclass
class Pending:
    """The pending jobs of each rule."""

    archives: list[str] = field(default_factory=list)
    """Names of the stores whose archives are to be fetched."""
    stores: list[str] = field(default_factory=list)
    """Names of the stores that are to be packed."""
    weights: list[str] = field(default_factory=list)
    """Names of the weights that are to be fetched."""
    train: dict[str, Reason] = field(default_factory=dict)
    """Path of a run -> why it is to be trained."""
    evaluate: dict[str, Reason] = field(default_factory=dict)
    """Path of a run -> why it is to be scored."""
    leaderboard: Reason | None = None
    track: Reason | None = None
    verdict: Reason | None = None

    @property
    def last(self) -> dict[str, Reason]:
        """Rule -> reason of the pending jobs that come after all runs."""
        reasons = {
            "build_leaderboard": self.leaderboard,
            "track": self.track,
            "verdict": self.verdict,
        }
        return {rule: reason for rule, reason in reasons.items() if reason}

    @property
    def counts(self) -> dict[str, int]:
        """Rule -> number of its pending jobs, without the rules that have none."""
        counts = {
            "fetch_archives": len(self.archives),
            "pack_store": len(self.stores),
            "fetch_weights": len(self.weights),
            "train": len(self.train),
            "evaluate": len(self.evaluate),
            **dict.fromkeys(self.last, 1),
        }
        return {rule: count for rule, count in counts.items() if count}


def find_pending(study: Study, stores: Path) -> Pending:
    """The pending jobs of `study`; `stores` is the folder of the packed images."""
    results = read_results(study)
    pending = find_changed(study, results)
    before = None
    while pending.counts != before:
        before = pending.counts
        add_downstream(study, pending)
        add_missing(study, results, pending)
    _add_inputs(study, stores, pending)
    return pending


def read_results(study: Study) -> list[RunResults]:
    """The result files of all planned runs."""
    return [RunResults(path, run, study.files.run(path)) for path, run in study.runs.items()]


def find_changed(study: Study, results: Sequence[RunResults]) -> Pending:
    """The jobs whose output is there and is not the planned one."""
    pending = Pending()
    for result in results:
        if reason := result.why_retrain():
            pending.train[result.path] = reason
        elif reason := result.why_rescore():
            pending.evaluate[result.path] = reason
    pending.leaderboard = why_leaderboard(study, results)
    if study.settings.tracking:
        pending.track = why_track(study)
    pending.verdict = why_verdict(study)
    return pending


def add_missing(study: Study, results: Sequence[RunResults], pending: Pending) -> None:
    """Add the jobs whose output is missing and that a pending job needs."""
    if not pending.verdict:  # the verdict needs the output of every other job
        return
    for result in results:
        if not result.scored and result.path not in pending.evaluate:
            pending.evaluate[result.path] = result.why_score()
    if study.settings.tracking and not study.files.tracked.is_file():
        pending.track = pending.track or Reason("not done yet")
    is_shown = bool(pending.leaderboard or pending.track)
    for result in results:
        is_scored = result.path in pending.evaluate
        needed = [
            file
            for file in result.missing
            if (is_scored if file == result.files.embeddings else is_shown)
        ]
        if needed and result.path not in pending.train:
            pending.train[result.path] = result.why_train()


def add_downstream(study: Study, pending: Pending) -> None:
    """Add the jobs that come after pending jobs: their inputs will change."""
    pending.evaluate |= dict.fromkeys(pending.train, AFTER_TRAINING)
    if pending.evaluate:
        pending.leaderboard = pending.leaderboard or AFTER_OTHERS
    if pending.leaderboard and study.settings.tracking:
        pending.track = pending.track or AFTER_OTHERS
    if pending.leaderboard or pending.track:
        pending.verdict = pending.verdict or AFTER_OTHERS


def _add_inputs(study: Study, stores: Path, pending: Pending) -> None:
    """Add the stores, archives and weights that the pending runs need and that are missing."""
    needed = {name for path in pending.train for name in study.runs[path].stores}
    needed |= {study.runs[path].tested.store for path in pending.evaluate}
    pending.stores = [
        name
        for name in study.stores
        if name in needed and not (stores / name / MANIFEST_FILE).is_file()
    ]
    pending.archives = [
        name
        for name in pending.stores
        if not (stores / name / "archives.json").is_file() and study.stores[name].has_archives
    ]
    trainings = [study.runs[path] for path in pending.train]
    names = {run.weights: None for run in trainings if run.uses_model}
    folder = stores.parent / "weights"
    pending.weights = [
        name for name in names if name and not (folder / f"{name}.safetensors").is_file()
    ]
