"""The cost of pending jobs: seconds of this machine, and bytes on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dmlbench.datasets.store.format import store_bytes
from dmlbench.planning.pending import AFTER_CHOICE, Pending
from dmlbench.planning.throughput import ModelSpeed, Throughput, embeds_between_epochs
from dmlbench.study.class_sizes import count_used_images
from dmlbench.study.run import GPU_SCORING_IMAGES, Run, count_images, count_training_images
from dmlbench.study.study import Study
from dmlbench.study.tuning import Trial

FLOAT_BYTES, HALF_BYTES = 4, 2
TRIAL_BYTES, TRIAL_ROW_BYTES = 10_000, 60
"""Of the files of a trial, and of each row of its curve."""
CHECKPOINT_FLOATS = 3
"""Numbers that a checkpoint has for each parameter: its value, and two moments of Adam."""

Counts = Mapping[str, Mapping[str, float] | None]


class Work(NamedTuple):
    """The number of images that a training processes."""

    trained: int
    """Images in the batches of all steps; an image counts each time."""
    tested: int
    """Test images, which are embedded after the last step; in a trial, images of held-out classes,
    which count each time that they are embedded."""
    refreshed: int = 0
    """Training images that are embedded: for the loss between epochs, where they count each time,
    or for a control."""
    refreshed_at_once: int = 0
    """Training images whose embeddings are in memory at once."""
    embedded: int = 0
    """Further images that are embedded, as after each epoch; they count each time."""


class Job(NamedTuple):
    """A run that is to be trained, to be scored, or both; or a trial of settings for it."""

    run: Run
    seconds: float
    device_seconds: float
    """Seconds of one GPU; of one core, if there is no GPU."""
    trial: int | None = None
    """The number of the trial; None for a run."""


@dataclass
class Cost:
    """The cost of pending jobs."""

    jobs: list[Job] = field(default_factory=list)
    unmeasured: list[Job] = field(default_factory=list)
    """Those whose speed is not known; their seconds are 0."""
    if_changed: float = 0.0
    """The device seconds of runs that are only trained if the choice of their settings changes."""
    uncounted: dict[str, None] = field(default_factory=dict)
    """Data sets whose number of images is not known."""
    stores: float = 0.0
    """Bytes of the images that are to be packed."""
    trials: float = 0.0
    """Bytes of the scores and the curves of trials."""
    embeddings: float = 0.0
    """Bytes of the embeddings."""
    optimism: float = 0.0
    """Bytes of the embeddings after each epoch, if the study reports its optimism."""
    models: float = 0.0
    """Bytes of the weights, if the study keeps them."""
    checkpoint: float = 0.0
    """Bytes of the largest checkpoint. Each training has one while it runs."""

    @property
    def device_seconds(self) -> float:
        """The `device_seconds` of all jobs together."""
        return sum(job.device_seconds for job in self.jobs)

    @property
    def trial_seconds(self) -> float:
        """The `device_seconds` of the trials."""
        return sum(job.device_seconds for job in self.jobs if job.trial is not None)

    def finish(self, devices: int) -> float:
        """Seconds until the last job ends, if all devices are used and no job is split."""
        trials = (job.seconds for job in self.jobs if job.trial is not None)
        runs = (job.seconds for job in self.jobs if job.trial is None)
        longest = max(trials, default=0.0) + max(runs, default=0.0)  # one after the other
        return max(self.device_seconds / devices, longest)


def training_work(run: Run, train: int, test: int) -> Work:
    """The work of `run`, which reads `train` training images and `test` test images."""
    if not run.trains:
        return Work(0, test, train, train)
    recipe, models = run.recipe, run.models
    held_out = train // models if models > 1 else 0
    train -= held_out
    at_once = train if embeds_between_epochs(run.loss_type) else 0
    trained = recipe.epochs * (train // recipe.batch_size) * recipe.batch_size
    return Work(
        models * trained,
        test,
        models * recipe.epochs * at_once,
        at_once,
        models * recipe.epochs * held_out + (models - 1) * test + optimism_epochs(run) * test,
    )


def optimism_epochs(run: Run) -> int:
    """After how many epochs the test images are embedded for `report_optimism`."""
    every = run.tuning.every if run.tuning else 1
    return -(-run.recipe.epochs // every) if run.report_optimism else 0


def trial_work(trial: Trial, train: float, held_out: float) -> Work:
    """The work of all folds of a trial together.

    Args:
        train: the training images, with those of held-out classes.
        held_out: the images on which a fold is validated.
    """
    folds, epochs = trial.tuning.folds_in_use, trial.run.recipe.epochs
    count = sum(trial.tuning.validates_after(epoch, epochs) for epoch in range(1, epochs + 1))
    fold = training_work(trial.run, round(train - held_out), round(held_out) * count)
    return fold._replace(
        trained=folds * fold.trained, tested=folds * fold.tested, refreshed=folds * fold.refreshed
    )


def training_seconds(
    work: Work,
    speed: ModelSpeed | None,
    rate: float | None = None,
    overhead: float | None = None,
    done: float = 0.0,
) -> float | None:
    """Seconds that a training takes; None if too little is known.

    Args:
        speed: of its model; None if it is not known.
        rate: images per second of whole trainings with this loss; `speed` is used if it is None.
        overhead: seconds that such jobs took apart from the training; estimated if None.
        done: the part of the steps that is done.
    """
    if not rate and not speed:
        return None
    if rate:
        steps = work.trained / rate
        speed = speed or ModelSpeed(rate, rate, 0.0, 0)
    else:
        assert speed
        steps = work.trained / speed.train + work.refreshed / speed.embed
    if overhead is None:
        overhead = speed.start + (work.tested + work.embedded) / speed.embed
    return (1 - done) * steps + overhead


def estimate_cost(study: Study, pending: Pending, speeds: Throughput, stores: Path) -> Cost:
    """The cost of the pending jobs on the device of `speeds`.

    Fetching, packing and the leaderboard are not included.

    Args:
        stores: the folder of the packed images.
    """
    total = Cost()
    for name in pending.stores:
        run = study.stores[name]
        if splits := count_images(run, stores / name):
            channels, form = run.facts["channels"], run.data.store
            total.stores += store_bytes(sum(splits.values()), channels, run.model.side, form)
    counts = count_by_dataset(study, stores)
    _add_trials(total, study, pending, speeds, counts)
    cells: dict[tuple[str, str, str], Cell] = {}
    for path, run in study.runs.items():
        trains, scores = path in pending.train, path in pending.evaluate
        if not (trains or scores):
            continue
        key = run.dataset, run.backbone, run.loss
        if key not in cells:
            cells[key] = read_cell(run, counts, speeds)
        cell = cells[key]
        total.uncounted |= dict.fromkeys(cell.uncounted)
        if trains:
            values = cell.work.tested * cell.dim
            total.embeddings += FLOAT_BYTES * values
            total.optimism += HALF_BYTES * values * optimism_epochs(run)
            models = FLOAT_BYTES * cell.parameters * run.models
            if run.trains and study.settings.keep_model:
                total.models += models
            if run.trains:
                best = models if run.models > 1 else 0.0  # each at its best epoch
                total.checkpoint = max(total.checkpoint, checkpoint_bytes(cell.speed) + best)
        training = cell.training_seconds(speeds.progress.get(path, 0.0)) if trains else 0.0
        scoring = cell.scoring_seconds if scores else 0.0
        if cell.uncounted:
            continue
        if training is None or scoring is None:
            total.unmeasured.append(Job(run, 0.0, 0.0))
            continue
        if speeds.device.gpus:
            scores_on_gpu = cell.work.tested >= GPU_SCORING_IMAGES
            device_seconds = training * run.uses_model + scoring * scores_on_gpu
        else:
            device_seconds = training * run.recipe.cpu_threads + scoring * run.evaluation.threads
        total.jobs.append(Job(run, training + scoring, device_seconds))
        if trains and pending.train[path] == AFTER_CHOICE:
            total.if_changed += device_seconds
    return total


def count_by_dataset(study: Study, stores: Path) -> Counts:
    """Data set -> split -> number of images that `study` uses of it; None if it is not known.

    Args:
        stores: the folder of the packed images.
    """
    counts: dict[str, Mapping[str, float] | None] = {}
    for reader in study.readers:
        if not counts.get(reader.dataset):  # a store of another side may be packed
            counts[reader.dataset] = count_used_images(reader, stores / reader.store)
    return counts


def _add_trials(
    total: Cost,
    study: Study,
    pending: Pending,
    speeds: Throughput,
    counts: Counts,
) -> None:
    """Add the cost of the pending trials to `total`."""
    cells: dict[str, TrialCell] = {}
    for path in pending.trials:
        trial = study.trials[path]
        if trial.cell not in cells:
            cells[trial.cell] = read_trial_cell(trial, counts, speeds)
        cell, recipe = cells[trial.cell], trial.run.recipe
        rows = trial.tuning.folds_in_use * recipe.epochs
        total.trials += TRIAL_BYTES + TRIAL_ROW_BYTES * rows
        total.checkpoint = max(total.checkpoint, checkpoint_bytes(cell.speed))
        if not cell.is_counted:
            total.uncounted[trial.run.dataset] = None
            continue
        seconds = cell.seconds(speeds.progress.get(path, 0.0))
        if seconds is None:
            total.unmeasured.append(Job(trial.run, 0.0, 0.0, trial.number))
            continue
        devices = 1 if speeds.device.gpus else recipe.cpu_threads
        total.jobs.append(Job(trial.run, seconds, devices * seconds, trial.number))


def checkpoint_bytes(speed: ModelSpeed | None) -> float:
    """Bytes of the checkpoints of a training, which keeps two; 0 if nobody counted the parameters
    of its model."""
    return 2 * FLOAT_BYTES * CHECKPOINT_FLOATS * (speed.parameters if speed else 0)


@dataclass
class Cell:
    """What all seeds of a data set, a backbone and a loss have in common."""

    run: Run
    """One of its runs."""
    work: Work
    uncounted: list[str]
    speed: ModelSpeed | None
    rate: float | None
    overhead: float | None
    scoring_seconds: float | None

    @property
    def parameters(self) -> int:
        return self.speed.parameters if self.speed else 0

    @property
    def dim(self) -> int:
        """The dimension of its embeddings; those of `frozen` are the features of the model."""
        features = self.speed.features if self.speed and self.run.control == "frozen" else 0
        return features or self.run.embedding_dim

    def training_seconds(self, done: float) -> float | None:
        if not self.run.uses_model:  # it writes vectors: only its start takes time
            return self.speed.start if self.speed else 0.0
        return training_seconds(self.work, self.speed, self.rate, self.overhead, done)


def read_cell(run: Run, counts: Counts, speeds: Throughput) -> Cell:
    """The cell of `run`; `counts` as of `count_by_dataset`."""
    readers = {"train": run} if run.reads_training_images else {}
    readers["test"] = run.tested
    known = {split: counts[reader.dataset] for split, reader in readers.items()}
    sizes = {split: round(_count(used or {}, split)) for split, used in known.items()}
    return Cell(
        run=run,
        work=training_work(run, sizes.get("train", 0), sizes["test"]),
        uncounted=[reader.dataset for split, reader in readers.items() if known[split] is None],
        speed=speeds.model_speed(run),
        rate=speeds.training_rate(run),
        overhead=speeds.overhead(run),
        scoring_seconds=speeds.scoring_time(run, sizes["test"]),
    )


@dataclass
class TrialCell:
    """What all trials of a data set, a backbone and a loss have in common."""

    work: Work
    is_counted: bool
    """Whether the number of training images is known."""
    speed: ModelSpeed | None
    rate: float | None
    held_out: float
    """Images that a validation scores."""
    validation_seconds: float | None
    """Of one validation, without computing the embeddings."""
    measured_seconds: float | None
    """Of finished trials."""

    def seconds(self, done: float) -> float | None:
        """Seconds that a trial takes; None if too little is known.

        Args:
            done: the part of its steps that is done.
        """
        if self.measured_seconds is not None:
            return (1 - done) * self.measured_seconds
        steps = training_seconds(self.work._replace(tested=0), self.speed, self.rate, overhead=0.0)
        if steps is None or self.validation_seconds is None:
            return None
        embed = self.speed.embed if self.speed else self.rate
        assert embed  # as of `training_seconds`
        start = self.speed.start if self.speed else 0.0
        count = self.work.tested / max(1, round(self.held_out))  # of validations
        validation = self.work.tested / embed + count * self.validation_seconds
        return (1 - done) * (steps + validation) + start


def _count(counts: Mapping[str, float], split: str) -> float:
    """The images that a run reads of a split."""
    return count_training_images(counts) if split == "train" else counts.get(split, 0)


def read_trial_cell(trial: Trial, counts: Counts, speeds: Throughput) -> TrialCell:
    """The cell of `trial`; `counts` as of `count_by_dataset`."""
    run, tuning = trial.run, trial.tuning
    splits = counts[run.dataset] or {}
    train = count_training_images(splits)
    held_out = train / tuning.folds
    if tuning.classes == "published":
        held_out = splits.get("validation", 0)
    return TrialCell(
        work=trial_work(trial, train, held_out),
        is_counted=bool(splits),
        speed=speeds.model_speed(run),
        rate=speeds.training_rate(run),
        held_out=held_out,
        validation_seconds=speeds.validation_time(run, held_out),
        measured_seconds=speeds.trial_time(trial),
    )
