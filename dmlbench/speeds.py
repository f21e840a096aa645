"""How fast runs go on this machine: as runs of the study went, else by a probe of their model,
which is asked for once (`dmlbench plan STUDY --probe`) and remembered."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from dmlbench import installed, source
from dmlbench.files import read_json_if_whole
from dmlbench.gpus import SCORED_FROM, visible_gpus
from dmlbench.run import METRICS, Run
from dmlbench.study import Study
from dmlbench.training.provenance import processor
from dmlbench.unfinished import look

MODEL = ("type", "dim", "head", "image_size", "resize")
RECIPE = ("batch_size", "optimizer", "freeze_bn", "pooling")
ON_GPU, ON_CPU = ("gpu_precision", "gpu_compile"), ("cpu_threads",)
"""The settings that decide how fast a model trains, on every device and on one kind."""
LOOKED_AT = 3
"""Finished runs of a loss on a data set whose speeds are read, at most."""
FORWARD = 3
"""Images that are embedded while one is trained on, where nobody measured it."""
TRAINING, SCORING = "dmlbench.probe", "dmlbench.evaluation.probe"
SAID = {
    TRAINING: "trains on {train:,.0f} images/s, embeds {embed:,.0f} images/s",
    SCORING: "{images} embeddings in {score:.2g} s",
}
_SCRIPT = "import runpy, sys; runpy.run_module(sys.argv.pop(1), run_name='__main__')"


class Device(NamedTuple):
    """What trainings run on: the GPUs, where there are some, else the CPU."""

    name: str
    """As results have it."""
    gpus: int


class Speed(NamedTuple):
    """Of a model."""

    train: float
    """Images a second."""
    embed: float
    """Images a second."""
    start: float
    """Seconds before the first step."""
    parameters: int
    """How many the model has; 0 where nobody counted them."""


def scoring_seconds(count: int, *, start: float, score: float, images: int) -> float:
    """Of `count` images, where the arithmetic of `images` took `score` seconds and all before it
    `start`: neighbours and clusters take the square of the number of images."""
    return start + score * (count / images) ** 2


class Probe(NamedTuple):
    """A measurement in a process of its own."""

    module: str
    spec: str
    """JSON: what is to be measured."""
    facts: list[Any]
    """What the answer holds for, beside `spec`."""

    @property
    def title(self) -> str:
        spec = json.loads(self.spec)
        model = spec.get("backbone")
        if model:
            return f"{model['type']} at {model['image_size']}"
        return f"scoring {spec['dim']}-d{' on a GPU' * spec['gpu']}"

    @property
    def known(self) -> dict[str, Any] | None:
        answer: dict[str, Any] | None = installed.remembered(self._name, [*self.facts, self.spec])
        return answer

    def ask(self) -> dict[str, Any]:
        """Measure, whatever is remembered. Raises BrokenInstallation, with the last words."""
        asked = (self.module, self.spec, str(time.time()))
        answer: dict[str, Any] = installed.ask(
            self._name, [*self.facts, self.spec], _SCRIPT, *asked
        )
        return answer

    @property
    def _name(self) -> str:
        return self.module.removeprefix("dmlbench.").replace(".", "-")


@dataclass
class Speeds:
    """What is known of the speeds of `device`."""

    device: Device
    trained: dict[tuple[str, ...], list[float]] = field(default_factory=lambda: defaultdict(list))
    """Images a second that trainings had, all in all: by model, loss and data set; by model and
    loss; by model, of losses that embed nothing between epochs. A model is the text of what decides
    its speed."""
    beside: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds that runs took beside training: by model and data set."""
    scored: dict[tuple[int, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds that their scoring took: by dimension and data set."""
    done: dict[str, float] = field(default_factory=dict)
    """Part that is done of trainings that are not finished, by the path of their run."""
    _models: dict[tuple[str, str], str] = field(default_factory=dict)
    _answers: dict[str, dict[str, Any] | None] = field(default_factory=dict)

    def model(self, run: Run) -> str:
        place = run.dataset, run.backbone
        if place not in self._models:
            settings = run.model.model_dump(mode="json"), run.recipe.model_dump(mode="json")
            self._models[place] = self.model_of(*settings, run.facts["channels"])
        return self._models[place]

    def model_of(
        self, backbone: Mapping[str, Any], recipe: Mapping[str, Any], channels: int
    ) -> str:
        """What decides the speed of a training, by settings as a run or a result has them."""
        names = (*RECIPE, *(ON_GPU if self.device.gpus else ON_CPU))
        spec = {
            "backbone": {name: backbone.get(name) for name in MODEL},
            "recipe": {name: recipe.get(name) for name in names},
            "channels": channels,
        }
        return json.dumps(spec)

    def of_training(self, run: Run) -> float | None:
        """Images a second that trainings with the loss of `run` had, all in all."""
        known = self.model(run), run.loss_type
        rates = self.trained.get((*known, run.dataset)) or self.trained.get(known)
        return median(rates) if rates else None

    def beside_training(self, run: Run) -> float | None:
        """Seconds that runs like `run` took beside training."""
        took = self.beside.get((self.model(run), run.dataset))
        return median(took) if took else None

    def of_model(self, run: Run) -> Speed | None:
        """As trainings had it with the model of `run`, else by a probe."""
        answer = self._known(self.model(run), lambda: self.training_probe(run))
        probed = Speed(**answer) if answer else None
        if not (rates := self.trained.get((self.model(run),))):
            return probed
        rate = median(rates)
        return probed._replace(train=rate) if probed else Speed(rate, FORWARD * rate, 0.0, 0)

    def scoring(self, run: Run, images: int) -> float | None:
        """Seconds that scoring the embeddings of `images` images takes, as it took, else by a
        probe."""
        if took := self.scored.get((run.model.dim, run.dataset)):
            return median(took)
        on_gpu = bool(self.device.gpus) and images >= SCORED_FROM
        settings = f"{run.model.dim} {run.evaluation.threads} {on_gpu}"
        answer = self._known(settings, lambda: self.scoring_probe(run, on_gpu))
        return scoring_seconds(images, **answer) if answer else None

    def training_probe(self, run: Run) -> Probe:
        backbone = installed.backbone_module(run.model.type)
        code = source.digest(TRAINING, backbone)
        versions = installed.versions("torch", "torchvision", "timm")
        return Probe(TRAINING, self.model(run), [self.device.name, versions, code])

    def scoring_probe(self, run: Run, on_gpu: bool) -> Probe:
        spec = {"dim": run.model.dim, "threads": run.evaluation.threads, "gpu": on_gpu}
        code = source.digest(SCORING, METRICS)
        versions = installed.versions("numpy", "faiss-gpu", "faiss-cpu", "torch")
        device = self.device.name if on_gpu else processor()
        return Probe(SCORING, json.dumps(spec), [device, versions, code])

    def _known(self, settings: str, probe: Callable[[], Probe]) -> dict[str, Any] | None:
        if settings not in self._answers:
            self._answers[settings] = probe().known
        return self._answers[settings]


def device() -> Device:
    gpus = visible_gpus()
    if not gpus:
        return Device(f"cpu ({processor()})", 0)
    command = ["nvidia-smi", f"--id={gpus[0]}", "--query-gpu=name", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return Device(answer.stdout.strip(), len(gpus))


def measure(runs: Iterable[Run]) -> None:
    """Ask every probe that `runs` need, and say on stderr what comes out.

    Raises:
        BrokenInstallation: a probe failed; its last words.
    """
    speeds = Speeds(device())
    probes: dict[str, Probe] = {}
    for run in runs:
        if run.uses_model and speeds.model(run) not in probes:
            probes[speeds.model(run)] = speeds.training_probe(run)
        for on_gpu in (False, True) if speeds.device.gpus else (False,):
            settings = f"{run.model.dim} {run.evaluation.threads} {on_gpu}"
            probes.setdefault(settings, speeds.scoring_probe(run, on_gpu))
    for number, probe in enumerate(probes.values(), start=1):
        what = f"probe {number} of {len(probes)}, {probe.title}"
        print(f"{what}: ", end="", file=sys.stderr, flush=True)
        try:
            answer = probe.ask()
        except installed.BrokenInstallation as error:
            print(file=sys.stderr)
            raise installed.BrokenInstallation(f"{probe.title} was not measured: {error}") from None
        print(SAID[probe.module].format(**answer), file=sys.stderr)


def read(study: Study) -> Speeds:
    """What the results and the unfinished trainings of `study` say of the speeds of this device,
    and what is remembered of probes."""
    speeds = Speeds(device())
    looked_at: Counter[tuple[str, str, str]] = Counter()
    for path, run in study.runs.items():
        cell = run.dataset, run.backbone, run.loss
        if run.trains and looked_at[cell] < LOOKED_AT:
            looked_at[cell] += _learn(speeds, run, study.folder / "runs" / path)
    for lock in (study.folder / "state").glob("*/*/*/*/lock"):
        path = str(lock.parent.relative_to(study.folder / "state"))
        if path in study.runs:
            alone = not speeds.device.gpus or study.settings.runs_per_gpu == 1
            _look_at_unfinished(speeds, study.runs[path], lock.parent, alone)
    return speeds


def _learn(speeds: Speeds, run: Run, folder: Path) -> bool:
    """Take the speed of the result in `folder`, if it is of this device; it may be one of other
    settings than `run`, which stands there in the plan."""
    result = read_json_if_whole(folder / "run.json")
    if not result or result["status"] != "ok":
        return False
    origin, settings = result["provenance"], result["settings"]
    rate, took = origin.get("images_per_second"), origin.get("train_seconds")
    if origin.get("device") != speeds.device.name or not rate:
        return False
    if origin.get("runs_per_gpu", 1) > 1:  # it had a part of the device
        return False
    if settings["loss"]["type"] != run.loss_type:  # which may be no more
        return False
    channels = settings["dataset"]["facts"]["channels"]
    model = speeds.model_of(settings["backbone"], settings["recipe"], channels)
    _note(speeds, model, run.loss_type, run.dataset, rate)
    if settings["dataset"] == run.settings["dataset"] and not run.elsewhere:
        # Snakemake's benchmark has the start of the process too
        whole = _benchmark(folder / "train.benchmark.tsv") or origin["wall_seconds"]
        if whole > took:  # what is less was not the only attempt
            speeds.beside[model, run.dataset].append(whole - took)
        if seconds := _benchmark(folder / "evaluate.benchmark.tsv"):
            speeds.scored[settings["backbone"]["dim"], run.dataset].append(seconds)
    return True


def _benchmark(table: Path) -> float | None:
    """Seconds that a job took, by Snakemake's table; None where there is none."""
    try:
        return float(table.read_text("utf-8").splitlines()[1].split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _look_at_unfinished(speeds: Speeds, run: Run, state: Path, alone: bool) -> None:
    begun = look(state, run.train_key)
    if not begun or not begun.progress:
        return
    progress = begun.progress
    speeds.done[run.path] = progress["step"] / progress["steps"]
    alike = alone and progress["device"].startswith("cuda") == bool(speeds.device.gpus)
    if alike and progress["host"] == platform.node() and progress["steps_per_second"]:
        rate = progress["steps_per_second"] * run.recipe.batch_size
        _note(speeds, speeds.model(run), run.loss_type, run.dataset, rate)


def _note(speeds: Speeds, model: str, loss: str, dataset: str, rate: float) -> None:
    speeds.trained[model, loss, dataset].append(rate)
    speeds.trained[model, loss].append(rate)
    if not embeds_between_epochs(loss):
        speeds.trained[(model,)].append(rate)


@cache
def embeds_between_epochs(loss: str) -> bool:
    """Whether the loss of this type has the training set embedded in its `refresh`. Its code does
    not say in which epochs: each counts, until a run was measured."""
    return source.calls_its_argument(installed.loss_module(loss), "refresh")
