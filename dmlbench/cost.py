"""What the jobs of a plan cost: seconds of this machine, and bytes on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dmlbench import source
from dmlbench.datasets import store_bytes
from dmlbench.due import Due
from dmlbench.files import read_json_if_whole
from dmlbench.gpus import SCORED_FROM
from dmlbench.run import Run
from dmlbench.speeds import Speed, Speeds, embeds_between_epochs
from dmlbench.study import Study

FLOAT = 4  # bytes
STATE = 3
"""Numbers that a checkpoint has for each parameter: itself, and two moments of Adam."""


class Work(NamedTuple):
    """What a training computes."""

    trained: int
    """Images of all steps."""
    tested: int
    """Images that are embedded after the last one."""
    refreshed: int = 0
    """Images that are embedded between epochs."""


class Job(NamedTuple):
    """A run that is to be trained, to be scored, or both."""

    run: Run
    seconds: float
    busy: float
    """Seconds of a GPU, or of a core where there is none."""


@dataclass
class Cost:
    """What the runs that are due cost."""

    jobs: list[Job] = field(default_factory=list)
    unmeasured: list[Run] = field(default_factory=list)
    """Runs whose speed is not known."""
    uncounted: dict[str, None] = field(default_factory=dict)
    """Data sets whose images are not counted yet."""
    stores: float = 0.0
    """Bytes of the packed images that are to be made."""
    embeddings: float = 0.0
    models: float = 0.0
    """Bytes of the weights that are kept."""
    checkpoint: float = 0.0
    """Bytes of the largest checkpoint; each training that runs has one."""

    @property
    def busy(self) -> float:
        return sum(job.busy for job in self.jobs)

    def finish(self, devices: int) -> float:
        """Seconds until the last job ends: all devices are at work, and no run is split."""
        return max(self.busy / devices, max((job.seconds for job in self.jobs), default=0.0))


def training_work(run: Run, train: int, test: int) -> Work:
    """Of a training on `train` images whose test has `test`."""
    recipe = run.recipe
    refreshed = recipe.epochs * train if embeds_between_epochs(run.loss_type) else 0
    return Work(recipe.epochs * (train // recipe.batch_size) * recipe.batch_size, test, refreshed)


def training_seconds(
    work: Work,
    speed: Speed | None,
    rate: float | None = None,
    beside: float | None = None,
    done: float = 0.0,
) -> float | None:
    """Seconds that a training takes.

    Args:
        speed: of its model; None where nobody knows.
        rate: images a second that trainings with this loss had, all in all; it counts more.
        beside: seconds that such runs took beside training; they count more.
        done: the part of the steps that is done.

    Returns None where too little is known.
    """
    if not rate and not speed:
        return None
    if rate:
        steps = work.trained / rate
        speed = speed or Speed(rate, rate, 0.0, 0)
    else:
        assert speed
        steps = work.trained / speed.train + work.refreshed / speed.embed
    if beside is None:
        beside = speed.start + work.tested / speed.embed
    return (1 - done) * steps + beside


def cost(study: Study, found: Due, speeds: Speeds, stores: Path) -> Cost:
    """What the jobs that are due cost on the device of `speeds`; without fetching, packing and the
    table."""
    total = Cost()
    counts = {name: images(run, stores / name) for name, run in study.stores.items()}
    for name in found.store:
        run, packed = study.stores[name], counts[name]
        if packed:
            of_all = sum(packed.values())
            size = run.facts["channels"], run.model.side, run.data.store
            total.stores += store_bytes(of_all, *size)
    cells: dict[tuple[str, str, str], _Cell] = {}
    for path, run in study.runs.items():
        trains, scores = path in found.train, path in found.evaluate
        if not (trains or scores):
            continue
        place = run.dataset, run.backbone, run.loss
        if place not in cells:
            cells[place] = _cell(run, counts, speeds)
        cell = cells[place]
        total.uncounted |= dict.fromkeys(cell.uncounted)
        if trains:
            total.embeddings += FLOAT * cell.work.tested * run.model.dim
            if run.trains and study.settings.keep_model:
                total.models += FLOAT * cell.parameters
            if run.trains:
                total.checkpoint = max(total.checkpoint, FLOAT * STATE * cell.parameters)
        training = cell.training(speeds.done.get(path, 0.0)) if trains else 0.0
        scoring = cell.scoring if scores else 0.0
        if cell.uncounted:
            continue
        if training is None or scoring is None:
            total.unmeasured.append(run)
            continue
        if speeds.device.gpus:
            busy = training * run.uses_model + scoring * (cell.work.tested >= SCORED_FROM)
        else:
            busy = training * run.recipe.cpu_threads + scoring * run.evaluation.threads
        total.jobs.append(Job(run, training + scoring, busy))
    return total


@dataclass
class _Cell:
    """What the runs of a cell have in common, whatever their seed."""

    run: Run
    work: Work
    uncounted: list[str]
    speed: Speed | None
    rate: float | None
    beside: float | None
    scoring: float | None

    @property
    def parameters(self) -> int:
        return self.speed.parameters if self.speed else 0

    def training(self, done: float) -> float | None:
        if not self.run.uses_model:  # it writes vectors, and has but to start
            return self.speed.start if self.speed else 0.0
        return training_seconds(self.work, self.speed, self.rate, self.beside, done)


def _cell(run: Run, counts: Mapping[str, dict[str, int] | None], speeds: Speeds) -> _Cell:
    of = {"train": run, "test": run.tested} if run.trains else {"test": run.tested}
    known = {split: counts[part.store] for split, part in of.items()}
    sizes = {
        split: round((known[split] or {}).get(split, 0) * part.data.class_fraction)
        for split, part in of.items()
    }
    tested = sizes["test"]
    return _Cell(
        run=run,
        work=training_work(run, sizes["train"], tested) if run.trains else Work(0, tested),
        uncounted=[part.dataset for split, part in of.items() if known[split] is None],
        speed=speeds.of_model(run),
        rate=speeds.of_training(run),
        beside=speeds.beside_training(run),
        scoring=speeds.scoring(run, tested),
    )


def images(run: Run, store: Path) -> dict[str, int] | None:
    """Number of images of each split of the run's data set, by its facts, its packed store or what
    its file says ABOUT it; None where nobody counted them."""
    splits = run.facts.get("splits")
    if splits is None:
        manifest = read_json_if_whole(store / "manifest.json") or {}
        declared = source.declarations(f"dmlbench.datasets.{run.data.type}").constants
        splits = manifest.get("splits") or declared.get("ABOUT")
    return splits and {split: count for split, (_, count) in splits.items()}
