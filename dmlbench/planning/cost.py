"""The cost of pending jobs: seconds of this machine, and bytes on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dmlbench.datasets.store.format import store_bytes
from dmlbench.planning.pending import Pending
from dmlbench.planning.throughput import ModelSpeed, Throughput, embeds_between_epochs
from dmlbench.study.run import GPU_SCORING_IMAGES, Run, count_images
from dmlbench.study.study import Study

FLOAT_BYTES = 4
CHECKPOINT_FLOATS = 3
"""Numbers that a checkpoint has for each parameter: its value, and two moments of Adam."""


class Work(NamedTuple):
    """The number of images that a training processes."""

    trained: int
    """Images in the batches of all steps; an image counts each time."""
    tested: int
    """Test images, which are embedded after the last step."""
    refreshed: int = 0
    """Training images that the loss has embedded between epochs; they count each time."""
    refreshed_at_once: int = 0
    """Training images that the loss has embedded between two epochs."""


class Job(NamedTuple):
    """A run that is to be trained, to be scored, or both."""

    run: Run
    seconds: float
    device_seconds: float
    """Seconds of one GPU; of one core, if there is no GPU."""


@dataclass
class Cost:
    """The cost of pending jobs."""

    jobs: list[Job] = field(default_factory=list)
    unmeasured: list[Run] = field(default_factory=list)
    """Runs whose speed is not known."""
    uncounted: dict[str, None] = field(default_factory=dict)
    """Data sets whose number of images is not known."""
    stores: float = 0.0
    """Bytes of the images that are to be packed."""
    embeddings: float = 0.0
    """Bytes of the embeddings."""
    models: float = 0.0
    """Bytes of the weights, if the study keeps them."""
    checkpoint: float = 0.0
    """Bytes of the largest checkpoint. Each training has one while it runs."""

    @property
    def device_seconds(self) -> float:
        """The `device_seconds` of all jobs together."""
        return sum(job.device_seconds for job in self.jobs)

    def finish(self, devices: int) -> float:
        """Seconds until the last job ends, if all devices are used and no run is split."""
        longest = max((job.seconds for job in self.jobs), default=0.0)
        return max(self.device_seconds / devices, longest)


def training_work(run: Run, train: int, test: int) -> Work:
    """The work of `run` with `train` training images and `test` test images."""
    recipe = run.recipe
    at_once = train if embeds_between_epochs(run.loss_type) else 0
    trained = recipe.epochs * (train // recipe.batch_size) * recipe.batch_size
    return Work(trained, test, recipe.epochs * at_once, at_once)


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
        overhead = speed.start + work.tested / speed.embed
    return (1 - done) * steps + overhead


def estimate_cost(study: Study, pending: Pending, speeds: Throughput, stores: Path) -> Cost:
    """The cost of the pending jobs on the device of `speeds`.

    Fetching, packing and the leaderboard are not included.

    Args:
        stores: the folder of the packed images.
    """
    total = Cost()
    counts = {name: count_images(run, stores / name) for name, run in study.stores.items()}
    for name in pending.stores:
        run, splits = study.stores[name], counts[name]
        if splits:
            channels, form = run.facts["channels"], run.data.store
            total.stores += store_bytes(sum(splits.values()), channels, run.model.side, form)
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
            total.embeddings += FLOAT_BYTES * cell.work.tested * run.model.dim
            if run.trains and study.settings.keep_model:
                total.models += FLOAT_BYTES * cell.parameters
            if run.trains:
                checkpoint = FLOAT_BYTES * CHECKPOINT_FLOATS * cell.parameters
                total.checkpoint = max(total.checkpoint, checkpoint)
        training = cell.training_seconds(speeds.progress.get(path, 0.0)) if trains else 0.0
        scoring = cell.scoring_seconds if scores else 0.0
        if cell.uncounted:
            continue
        if training is None or scoring is None:
            total.unmeasured.append(run)
            continue
        if speeds.device.gpus:
            scores_on_gpu = cell.work.tested >= GPU_SCORING_IMAGES
            device_seconds = training * run.uses_model + scoring * scores_on_gpu
        else:
            device_seconds = training * run.recipe.cpu_threads + scoring * run.evaluation.threads
        total.jobs.append(Job(run, training + scoring, device_seconds))
    return total


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

    def training_seconds(self, done: float) -> float | None:
        if not self.run.uses_model:  # it writes vectors: only its start takes time
            return self.speed.start if self.speed else 0.0
        return training_seconds(self.work, self.speed, self.rate, self.overhead, done)


def read_cell(run: Run, counts: Mapping[str, dict[str, int] | None], speeds: Throughput) -> Cell:
    """The cell of `run`; `counts` holds the number of images of each store by split."""
    readers = {"train": run, "test": run.tested} if run.trains else {"test": run.tested}
    known = {split: counts[reader.store] for split, reader in readers.items()}
    sizes = {
        split: round((known[split] or {}).get(split, 0) * reader.data.class_fraction)
        for split, reader in readers.items()
    }
    tested = sizes["test"]
    return Cell(
        run=run,
        work=training_work(run, sizes["train"], tested) if run.trains else Work(0, tested),
        uncounted=[reader.dataset for split, reader in readers.items() if known[split] is None],
        speed=speeds.model_speed(run),
        rate=speeds.training_rate(run),
        overhead=speeds.overhead(run),
        scoring_seconds=speeds.scoring_time(run, tested),
    )
