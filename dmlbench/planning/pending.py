"""The jobs that `snakemake` would run now, and why, found from the result files alone.

The workflow asks this module too (see workflow/rules/common.smk), so Snakemake runs what is pending
here. Only the content of the files counts, not their dates: a job is pending if its output has
another key than the planned one, is damaged, or belongs to other inputs than those that are there.
Embeddings, histories, scores of single queries and artefacts that are missing are no reason to run,
until a job needs them.

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
from functools import cached_property
from pathlib import Path

from dmlbench.datasets.store.duplicates_file import can_be_written, read_duplicates, searched_stores
from dmlbench.datasets.store.format import MANIFEST_FILE
from dmlbench.leaderboard.made_of import results_digest
from dmlbench.planning.reasons import (
    AFTER_OTHERS,
    AFTER_TRAINING,
    SEARCHED_SINCE,
    Reason,
    RunResults,
    why_gallery,
    why_leaderboard,
    why_track,
    why_verdict,
)
from dmlbench.planning.tuning_reasons import (
    AFTER_CHOICE,
    AFTER_TRIALS,
    ChoiceResults,
    TrialResults,
)
from dmlbench.study.features import are_there, features_of
from dmlbench.study.run import Run
from dmlbench.study.study import Study


@dataclass
class Pending:
    """The pending jobs of each rule."""

    archives: list[str] = field(default_factory=list)
    """Names of the stores whose archives are to be fetched."""
    stores: list[str] = field(default_factory=list)
    """Names of the stores that are to be packed."""
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    """Stores of training images and of test images between which near-duplicates are to be
    found."""
    weights: list[str] = field(default_factory=list)
    """Names of the weights that are to be fetched."""
    features: list[str] = field(default_factory=list)
    """Features of frozen backbones that are to be computed, as `store/name`."""
    trials: dict[str, Reason] = field(default_factory=dict)
    """Path of a trial -> why it is to be made."""
    choices: dict[str, Reason] = field(default_factory=dict)
    """A tuned cell -> why its settings are to be chosen."""
    train: dict[str, Reason] = field(default_factory=dict)
    """Path of a run -> why it is to be trained."""
    evaluate: dict[str, Reason] = field(default_factory=dict)
    """Path of a run -> why it is to be scored."""
    galleries: dict[str, Reason] = field(default_factory=dict)
    """dataset/backbone -> why its pictures are to be drawn."""
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
            "find_duplicates": len(self.duplicates),
            "fetch_weights": len(self.weights),
            "compute_features": len(self.features),
            "trial": len(self.trials),
            "choose": len(self.choices),
            "train": len(self.train),
            "evaluate": len(self.evaluate),
            "draw_pictures": len(self.galleries),
            **dict.fromkeys(self.last, 1),
        }
        return {rule: count for rule, count in counts.items() if count}


@dataclass(frozen=True)
class Results:
    """The result files of a study, read once."""

    runs: list[RunResults]
    choices: list[ChoiceResults]
    """Of the cells that are tuned, with their trials."""

    @property
    def digest(self) -> str:
        """The digest by which a leaderboard knows what it was made from."""
        return results_digest(
            [
                *((run.path, run.trained, run.scored) for run in self.runs),
                *((choice.cell, choice.chosen) for choice in self.choices),
            ]
        )

    @cached_property
    def _by_path(self) -> dict[str, RunResults]:
        return {run.path: run for run in self.runs}

    def digest_of(self, runs: Sequence[Run]) -> str:
        """The digest by which the pictures of `runs` know what they were made from."""
        results = [self._by_path[run.path] for run in runs]
        return results_digest((run.path, run.trained, run.scored) for run in results)


def find_pending(study: Study, stores: Path) -> Pending:
    """The pending jobs of `study`; `stores` is the folder of the packed images."""
    results = read_results(study)
    pending = find_changed(study, results)
    _add_searched(study, results, stores, pending)
    before = None
    while pending.counts != before:
        before = pending.counts
        add_downstream(study, results, pending)
        add_missing(study, results, pending)
    _add_inputs(study, stores, pending)
    return pending


def read_results(study: Study) -> Results:
    """The result files of all planned runs, trials and choices."""
    files = study.files
    choices = {}
    for cell, trials in study.tuned_cells.items():
        tried = [TrialResults(trial, files.trial(trial.path)) for trial in trials]
        choices[cell] = ChoiceResults(cell, tried, files.choice(cell))
    runs = []
    for path, run in study.runs.items():
        choice = choices[run.cell].chosen if run.tuning else None
        runs.append(RunResults(path, run, files.run(path), choice))
    return Results(runs, [*choices.values()])


def find_changed(study: Study, results: Results) -> Pending:
    """The jobs whose output is there and is not the planned one."""
    pending = Pending()
    for choice in results.choices:
        for tried in choice.trials:
            if reason := tried.why_repeat():
                pending.trials[tried.trial.path] = reason
        if reason := choice.why_choose_again():
            pending.choices[choice.cell] = reason
    for result in results.runs:
        if reason := result.why_retrain():
            pending.train[result.path] = reason
        elif reason := result.why_rescore():
            pending.evaluate[result.path] = reason
    pending.leaderboard = why_leaderboard(study, results.digest)
    for group, runs in study.galleries.items():
        if reason := why_gallery(study, group, results.digest_of(runs)):
            pending.galleries[group] = reason
    if study.settings.tracking:
        pending.track = why_track(study)
    pending.verdict = why_verdict(study)
    return pending


def add_missing(study: Study, results: Results, pending: Pending) -> None:
    """Add the jobs whose output is missing and that a pending job needs."""
    if not pending.verdict:  # the verdict needs the output of every other job
        return
    for result in results.runs:
        if not result.scored and result.path not in pending.evaluate:
            pending.evaluate[result.path] = result.why_score()
    if study.settings.tracking and not study.files.tracked.is_file():
        pending.track = pending.track or Reason("not done yet")
    is_shown = bool(pending.leaderboard or pending.track)
    for result in results.runs:
        if is_shown and result.missing_scores and result.path not in pending.evaluate:
            pending.evaluate[result.path] = result.why_score()
        is_scored = result.path in pending.evaluate
        needed = [
            file
            for file in result.missing
            if (is_scored if result.files.is_scored(file) else is_shown)
        ]
        if needed and result.path not in pending.train:
            pending.train[result.path] = result.why_train()
    trained = {study.runs[path].cell for path in pending.train}
    for choice in results.choices:
        is_needed = is_shown or choice.cell in trained
        if is_needed and not choice.chosen and choice.cell not in pending.choices:
            pending.choices[choice.cell] = choice.why_choose()
        if choice.cell in pending.choices:
            for tried in choice.trials:
                if not tried.tried and tried.trial.path not in pending.trials:
                    pending.trials[tried.trial.path] = tried.why_try()


def add_downstream(study: Study, results: Results, pending: Pending) -> None:
    """Add the jobs that come after pending jobs: their inputs will change."""
    for path in pending.trials:
        pending.choices.setdefault(study.trials[path].cell, AFTER_TRIALS)
    if pending.choices:
        for result in results.runs:
            run = study.runs[result.path]
            if run.tuning and run.cell in pending.choices:
                # a run without a result is trained whatever is chosen
                reason = AFTER_CHOICE if result.trained else result.why_train()
                pending.train.setdefault(result.path, reason)
    pending.evaluate |= dict.fromkeys(pending.train, AFTER_TRAINING)
    if pending.evaluate:
        pending.leaderboard = pending.leaderboard or AFTER_OTHERS
    for group, runs in study.galleries.items():
        if any(run.path in pending.evaluate for run in runs):
            pending.galleries.setdefault(group, AFTER_OTHERS)
    if (pending.leaderboard or pending.galleries) and study.settings.tracking:
        pending.track = pending.track or AFTER_OTHERS
    if pending.leaderboard or pending.galleries or pending.track:
        pending.verdict = pending.verdict or AFTER_OTHERS


def _add_searched(study: Study, results: Results, stores: Path, pending: Pending) -> None:
    """Add the scorings of results that were scored before somebody searched for near-duplicates."""
    unsearched: dict[tuple[str, str], list[str]] = {}
    for result in results.runs:
        if result.is_scored_unsearched and result.path not in pending.train:
            unsearched.setdefault(study.runs[result.path].searched, []).append(result.path)
    for pair, paths in unsearched.items():
        if read_duplicates(stores, *pair) is not None:
            for path in paths:
                pending.evaluate.setdefault(path, SEARCHED_SINCE)


def _add_inputs(study: Study, stores: Path, pending: Pending) -> None:
    """Add the stores, archives, weights, features and near-duplicates that the pending jobs need
    and that are missing."""
    trained = [study.runs[path] for path in pending.train]
    tried = [study.trials[path].run for path in pending.trials]
    needed = {name for run in trained for name in run.stores} | {run.store for run in tried}
    needed |= {study.runs[path].tested.store for path in pending.evaluate}
    needed |= {study.galleries[group][0].tested.store for group in pending.galleries}
    read = {name.path: name for run in (*tried, *trained) for name in features_of(run)}
    missing = {path: name for path, name in read.items() if not are_there(stores, name)}
    pending.features = [*missing]
    needed |= {features.store for features in missing.values()}
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
    scored = [study.runs[path] for path in pending.evaluate]
    pending.duplicates = [
        pair
        for pair in dict.fromkeys(run.searched for run in scored)
        if _is_to_be_searched(stores, pair, pending.stores)
    ]
    building = (*tried, *trained, *(features.run for features in missing.values()))
    names = {run.weights: None for run in building if run.uses_model}
    folder = stores.parent / "weights"
    pending.weights = [
        name for name in names if name and not (folder / f"{name}.safetensors").is_file()
    ]


def _is_to_be_searched(stores: Path, pair: tuple[str, str], packed: Sequence[str]) -> bool:
    """Whether near-duplicates are to be found between a pair of stores, as of `Run.searched`.

    The images must be there, or be `packed` by a pending job: a search is no reason to pack. And
    the store of the test images must be writable: it may belong to others.
    """
    needed = searched_stores(*pair)
    is_there = all(name in packed or (stores / name / MANIFEST_FILE).is_file() for name in needed)
    return is_there and can_be_written(stores, pair[1]) and read_duplicates(stores, *pair) is None
