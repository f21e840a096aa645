"""How fast runs are on this machine.

The speed is taken from finished runs of the study. If there are none, it is taken from a probe, a
short measurement of the model. A probe runs only when the user asks for it (`dmlbench plan STUDY
--probe`), and its answer is remembered.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from dmlbench.backbones.catalogue import backbone_module
from dmlbench.losses._catalogue import loss_module
from dmlbench.study.result_files import RunFiles
from dmlbench.study.run import GPU_SCORING_IMAGES, METRICS, Run
from dmlbench.study.study import Study
from dmlbench.training.provenance import processor
from dmlbench.training.run_state import inspect_training
from dmlbench.utils import discovery
from dmlbench.utils.declarations import calls_its_argument
from dmlbench.utils.errors import BrokenInstallation
from dmlbench.utils.fingerprint import code_digest
from dmlbench.utils.gpus import find_gpus

MODEL_SETTINGS = ("type", "dim", "head", "image_size", "resize")
RECIPE_SETTINGS = ("batch_size", "optimizer", "freeze_bn", "pooling")
GPU_SETTINGS = ("gpu_precision", "gpu_compile")
CPU_SETTINGS = ("cpu_threads",)
"""The settings that decide how fast a model trains: those of the backbone, those of the recipe, and
those that count on a GPU or on a CPU alone."""
MAX_RUNS_READ = 3
"""Read the speed of this many finished runs of a cell at most."""
EMBED_FACTOR = 3
"""Embedding an image is believed to be this many times faster than training on it, if nobody has
measured it."""
TRAINING, SCORING = "dmlbench.planning.probe_training", "dmlbench.planning.probe_scoring"
ANSWERS = {
    TRAINING: "trains on {train:,.0f} images/s, embeds {embed:,.0f} images/s",
    SCORING: "{images} embeddings in {score:.2g} s",
}
"""Module of a probe -> its answer in words."""


class Device(NamedTuple):
    """What trainings run on: the GPUs if there are any, else the CPU."""

    name: str
    """As result files name it."""
    gpus: int


class ModelSpeed(NamedTuple):
    """How fast a model is, as a probe answers it."""

    train: float
    """Images per second in training."""
    embed: float
    """Images per second when embedding."""
    start: float
    """Seconds before the first step."""
    parameters: int
    """Number of parameters; 0 if nobody counted them."""


def scoring_seconds(count: int, *, start: float, score: float, images: int) -> float:
    """Seconds that scoring `count` images takes, from a measurement.

    Args:
        start: measured seconds before the arithmetic.
        score: measured seconds of the arithmetic, for this number of `images`. They grow with the
            square of the number, as neighbours and clusters do.

    >>> scoring_seconds(6000, start=2.0, score=1.0, images=2000)
    11.0
    """
    return start + score * (count / images) ** 2


class Probe(NamedTuple):
    """A measurement in a process of its own."""

    module: str
    spec: str
    """What is to be measured, in JSON."""
    facts: list[Any]
    """What the answer depends on, apart from `spec`."""

    @property
    def title(self) -> str:
        spec = json.loads(self.spec)
        model = spec.get("backbone")
        if model:
            return f"{model['type']} at {model['image_size']}"
        return f"scoring {spec['dim']}-d{' on a GPU' if spec['gpu'] else ''}"

    @property
    def known(self) -> dict[str, Any] | None:
        """The remembered answer; None if nobody asked yet."""
        answer: dict[str, Any] | None = discovery.remembered(self._name, [*self.facts, self.spec])
        return answer

    def measure(self) -> dict[str, Any]:
        """The answer, measured now and remembered.

        Raises:
            BrokenInstallation: the process failed; the text is its last line.
        """
        answer: dict[str, Any] = discovery.ask(
            self._name, [*self.facts, self.spec], self.module, self.spec, str(time.time())
        )
        return answer

    @property
    def _name(self) -> str:
        return self.module.removeprefix("dmlbench.").replace(".", "-")


@dataclass
class Throughput:
    """What is known about the speed of `device`."""

    device: Device
    training_rates: dict[tuple[str, ...], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """Images per second of whole trainings, with all that they did between the steps.

    The keys are (spec, loss, data set), (spec, loss) and (spec,); `training_spec` gives the spec.
    Trainings whose loss embeds the training set between epochs have no key (spec,)."""
    overheads: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    """(spec, data set) -> seconds of whole training jobs apart from the training itself."""
    scoring_times: dict[tuple[int, str], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """(dimension, data set) -> seconds of whole scoring jobs."""
    progress: dict[str, float] = field(default_factory=dict)
    """Path of an unfinished run -> the part of its steps that is done."""
    _specs: dict[tuple[str, str], str] = field(default_factory=dict)
    _answers: dict[str, dict[str, Any] | None] = field(default_factory=dict)

    def training_spec(self, run: Run) -> str:
        """The settings of `run` that decide how fast its model trains, in JSON."""
        cell = run.dataset, run.backbone
        if cell not in self._specs:
            settings = run.model.model_dump(mode="json"), run.recipe.model_dump(mode="json")
            self._specs[cell] = self.create_spec(*settings, run.facts["channels"])
        return self._specs[cell]

    def create_spec(
        self, backbone: Mapping[str, Any], recipe: Mapping[str, Any], channels: int
    ) -> str:
        """As `training_spec`, from the settings in a run or in its result file."""
        names = (*RECIPE_SETTINGS, *(GPU_SETTINGS if self.device.gpus else CPU_SETTINGS))
        spec = {
            "backbone": {name: backbone.get(name) for name in MODEL_SETTINGS},
            "recipe": {name: recipe.get(name) for name in names},
            "channels": channels,
        }
        return json.dumps(spec)

    def training_rate(self, run: Run) -> float | None:
        """Images per second of whole trainings with the loss and the model of `run`.

        Those on its data set count; if there are none, those on other data sets do.
        """
        key = self.training_spec(run), run.loss_type
        rates = self.training_rates.get((*key, run.dataset)) or self.training_rates.get(key)
        return median(rates) if rates else None

    def overhead(self, run: Run) -> float | None:
        """Seconds that jobs like that of `run` took apart from the training itself."""
        seconds = self.overheads.get((self.training_spec(run), run.dataset))
        return median(seconds) if seconds else None

    def model_speed(self, run: Run) -> ModelSpeed | None:
        """The speed of the model of `run`.

        Its rate of training comes from trainings with any loss, if there are some. The rest comes
        from a probe.
        """
        spec = self.training_spec(run)
        answer = self._known(spec, lambda: self.training_probe(run))
        probed = ModelSpeed(**answer) if answer else None
        if not (rates := self.training_rates.get((spec,))):
            return probed
        rate = median(rates)
        if probed:
            return probed._replace(train=rate)
        return ModelSpeed(rate, EMBED_FACTOR * rate, start=0.0, parameters=0)

    def scoring_time(self, run: Run, images: int) -> float | None:
        """Seconds that scoring `images` embeddings of `run` takes.

        Finished scorings tell it, else a probe.
        """
        if seconds := self.scoring_times.get((run.model.dim, run.dataset)):
            return median(seconds)
        on_gpu = bool(self.device.gpus) and images >= GPU_SCORING_IMAGES
        answer = self._known(_scoring_spec(run, on_gpu), lambda: self.scoring_probe(run, on_gpu))
        return scoring_seconds(images, **answer) if answer else None

    def training_probe(self, run: Run) -> Probe:
        """The measurement of how fast the model of `run` trains and embeds."""
        code = code_digest(TRAINING, backbone_module(run.model.type))
        versions = discovery.versions("torch", "torchvision", "timm")
        return Probe(TRAINING, self.training_spec(run), [self.device.name, versions, code])

    def scoring_probe(self, run: Run, on_gpu: bool) -> Probe:
        """The measurement of how fast embeddings like those of `run` are scored."""
        code = code_digest(SCORING, METRICS)
        versions = discovery.versions("numpy", "faiss-gpu", "faiss-cpu", "torch")
        device = self.device.name if on_gpu else processor()
        return Probe(SCORING, _scoring_spec(run, on_gpu), [device, versions, code])

    def add_rate(self, spec: str, loss: str, dataset: str, rate: float) -> None:
        """Add the images per second of a training to `training_rates`."""
        self.training_rates[spec, loss, dataset].append(rate)
        self.training_rates[spec, loss].append(rate)
        if not embeds_between_epochs(loss):
            self.training_rates[(spec,)].append(rate)

    def _known(self, spec: str, probe: Callable[[], Probe]) -> dict[str, Any] | None:
        """The remembered answer to `spec`, looked up once."""
        if spec not in self._answers:
            self._answers[spec] = probe().known
        return self._answers[spec]


def _scoring_spec(run: Run, on_gpu: bool) -> str:
    """The settings of `run` that decide how fast embeddings are scored, in JSON."""
    return json.dumps({"dim": run.model.dim, "threads": run.evaluation.threads, "gpu": on_gpu})


def find_device() -> Device:
    """The device of this machine that trainings run on."""
    gpus = find_gpus().usable
    return Device(gpus[0].name, len(gpus)) if gpus else Device(f"cpu ({processor()})", 0)


def measure_throughput(runs: Iterable[Run]) -> None:
    """Run every probe that `runs` need once, and print the answers on stderr.

    Raises:
        BrokenInstallation: a probe failed; the text is its last line.
    """
    speeds = Throughput(find_device())
    probes: dict[str, Probe] = {}
    for run in runs:
        if run.uses_model and speeds.training_spec(run) not in probes:
            probes[speeds.training_spec(run)] = speeds.training_probe(run)
        for on_gpu in (False, True) if speeds.device.gpus else (False,):
            if _scoring_spec(run, on_gpu) not in probes:
                probes[_scoring_spec(run, on_gpu)] = speeds.scoring_probe(run, on_gpu)
    for number, probe in enumerate(probes.values(), start=1):
        title = f"probe {number} of {len(probes)}, {probe.title}"
        print(f"{title}: ", end="", file=sys.stderr, flush=True)
        try:
            answer = probe.measure()
        except BrokenInstallation as error:
            print(file=sys.stderr)
            raise BrokenInstallation(f"{probe.title} was not measured: {error}") from None
        print(ANSWERS[probe.module].format(**answer), file=sys.stderr)
    discovery.remember("probed", _kind(bool(speeds.device.gpus)), speeds.device.name)


def last_probed(on_gpu: bool) -> str | None:
    """The name of the GPU, or of the CPU, that was probed last; None if none was.

    It may be that of another machine: nodes of a cluster share the folder of the user.
    """
    name: str | None = discovery.remembered("probed", _kind(on_gpu))
    return name


def _kind(on_gpu: bool) -> str:
    return "gpu" if on_gpu else "cpu"


def read_throughput(study: Study, device: Device | None = None) -> Throughput:
    """What finished and unfinished runs of `study` and remembered probes tell about the speed of
    `device`, or of this machine."""
    speeds = Throughput(device or find_device())
    runs_read: Counter[tuple[str, str, str]] = Counter()
    for path, run in study.runs.items():
        cell = run.dataset, run.backbone, run.loss
        if run.trains and runs_read[cell] < MAX_RUNS_READ:
            runs_read[cell] += _add_finished(speeds, run, study.files.run(path))
    for path in study.files.unfinished():
        if path in study.runs:
            shares_gpu = bool(speeds.device.gpus) and study.settings.runs_per_gpu > 1
            _add_unfinished(speeds, study.runs[path], study.files.run(path).state, shares_gpu)
    return speeds


def _add_finished(speeds: Throughput, run: Run, files: RunFiles) -> bool:
    """Add the speed in a result file to `speeds`, if it was made on the same device.

    Its settings may differ from those of `run`, which is planned now.
    """
    result = files.read_run()
    if not result or result["status"] != "ok":
        return False
    origin, settings = result["provenance"], result["settings"]
    rate, training_seconds = origin.get("images_per_second"), origin.get("train_seconds")
    if origin.get("device") != speeds.device.name or not rate:
        return False
    if origin.get("runs_per_gpu", 1) > 1:  # it had only a part of the device
        return False
    if settings["loss"]["type"] != run.loss_type:  # the other type may not exist any more
        return False
    channels = settings["dataset"]["facts"]["channels"]
    spec = speeds.create_spec(settings["backbone"], settings["recipe"], channels)
    speeds.add_rate(spec, run.loss_type, run.dataset, rate)
    if settings["dataset"] == run.settings["dataset"] and not run.test_on:
        # Snakemake's table includes the start of the process
        job_seconds = _job_seconds(files.train_benchmark) or origin["wall_seconds"]
        if job_seconds > training_seconds:  # if not, this attempt was not the only one
            speeds.overheads[spec, run.dataset].append(job_seconds - training_seconds)
        if seconds := _job_seconds(files.evaluate_benchmark):
            speeds.scoring_times[settings["backbone"]["dim"], run.dataset].append(seconds)
    return True


def _job_seconds(table: Path) -> float | None:
    """Seconds that a job took, by Snakemake's table; None if it is missing or damaged."""
    try:
        return float(table.read_text("utf-8").splitlines()[1].split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _add_unfinished(speeds: Throughput, run: Run, state: Path, shares_gpu: bool) -> None:
    """Add the progress of an unfinished training, and its speed if it is that of a whole device
    of this machine."""
    unfinished = inspect_training(state, run.train_key)
    if not unfinished or not unfinished.progress:
        return
    progress = unfinished.progress
    speeds.progress[run.path] = progress["step"] / progress["steps"]
    is_same_kind = progress["device"].startswith("cuda") == bool(speeds.device.gpus)
    is_here = progress["host"] == platform.node()
    if is_same_kind and is_here and not shares_gpu and progress["steps_per_second"]:
        rate = progress["steps_per_second"] * run.recipe.batch_size
        speeds.add_rate(speeds.training_spec(run), run.loss_type, run.dataset, rate)


@cache
def embeds_between_epochs(loss: str) -> bool:
    """Whether a loss of this type embeds the training set in its `refresh`.

    Its code does not say in which epochs. Until a run is measured, every epoch is assumed.
    """
    return calls_its_argument(loss_module(loss), "refresh")
