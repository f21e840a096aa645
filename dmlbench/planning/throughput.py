"""How fast runs are on this machine.

The speed is taken from finished runs of the study. If there are none, it is taken from a probe, a
short measurement of the model. A probe runs only when the user asks for it (`dmlbench plan STUDY
--probe`), and its answer is remembered.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from dmlbench.backbones.catalogue import backbone_module
from dmlbench.losses._catalogue import loss_module
from dmlbench.study.run import GPU_SCORING_IMAGES, METRICS, Run
from dmlbench.study.tuning import Trial
from dmlbench.training.provenance import processor
from dmlbench.utils import discovery
from dmlbench.utils.declarations import calls_its_argument
from dmlbench.utils.errors import BrokenInstallation
from dmlbench.utils.fingerprint import code_digest
from dmlbench.utils.gpus import find_gpus

if TYPE_CHECKING:
    from dmlbench.study.settings import Recipe

MODEL_SETTINGS = ("type", "dim", "head", "image_size", "resize", "trunk")
RECIPE_SETTINGS = ("batch_size", "chunk", "optimizer", "freeze_bn", "pooling")
GPU_SETTINGS = ("gpu_precision", "gpu_compile")
CPU_SETTINGS = ("cpu_threads",)
"""The settings that decide how fast a model trains: those of the backbone, those of the recipe, and
those that count on a GPU or on a CPU alone."""
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
    features: int = 0
    """Number of features that its head takes; 0 if nobody counted them."""


class ScoringSpeed(NamedTuple):
    """How fast embeddings are scored, as a probe answers it."""

    start: float
    """Seconds before the arithmetic."""
    score: float
    """Seconds of the arithmetic for `images`. They grow with the square of the number, as
    neighbours and clusters do."""
    validate: float
    """Seconds without clustering, as in a validation."""
    images: int

    def scoring(self, count: float) -> float:
        """Seconds that scoring `count` images takes.

        >>> ScoringSpeed(start=2.0, score=1.0, validate=0.5, images=2000).scoring(6000)
        11.0
        """
        return self.start + self.score * (count / self.images) ** 2

    def validation(self, count: float) -> float:
        """Seconds that validating on `count` images takes, in a process that runs already.

        >>> ScoringSpeed(start=2.0, score=1.0, validate=0.5, images=2000).validation(6000)
        4.5
        """
        return self.validate * (count / self.images) ** 2


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
    trial_times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Tuned cell -> seconds of whole trials."""
    progress: dict[str, float] = field(default_factory=dict)
    """Path of an unfinished run or trial -> the part of its steps that is done."""
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
        backbone = {"trunk": "trained", **backbone}  # results name only the other kind
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
        return ModelSpeed(rate, forward_passes(run.recipe) * rate, start=0.0, parameters=0)

    def scoring_time(self, run: Run, images: int) -> float | None:
        """Seconds that scoring `images` embeddings of `run` takes.

        Finished scorings tell it, else a probe.
        """
        if seconds := self.scoring_times.get((run.model.dim, run.dataset)):
            return median(seconds)
        on_gpu = bool(self.device.gpus) and images >= GPU_SCORING_IMAGES
        speed = self._scoring_speed(run, on_gpu)
        # several models are scored one by one and together
        scorings = run.models + 1 if run.models > 1 else 1
        return scorings * speed.scoring(images) if speed else None

    def validation_time(self, run: Run, images: float) -> float | None:
        """Seconds that a training of `run` takes to validate its model on `images`."""
        speed = self._scoring_speed(run, on_gpu=False)
        return speed.validation(images) if speed else None

    def trial_time(self, trial: Trial) -> float | None:
        """Seconds that other trials of the cell of `trial` took."""
        seconds = self.trial_times.get(trial.cell)
        return median(seconds) if seconds else None

    def _scoring_speed(self, run: Run, on_gpu: bool) -> ScoringSpeed | None:
        answer = self._known(_scoring_spec(run, on_gpu), lambda: self.scoring_probe(run, on_gpu))
        return ScoringSpeed(**answer) if answer else None

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


def forward_passes(recipe: Recipe) -> int:
    """The time of a step, in forward passes of its batch, as long as nobody has measured it.

    A backward pass takes two. In chunks, the batch is embedded once more.
    """
    return 3 if recipe.chunk is None else 4


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


@cache
def embeds_between_epochs(loss: str) -> bool:
    """Whether a loss of this type embeds the training set in its `refresh`.

    Its code does not say in which epochs. Until a run is measured, every epoch is assumed.
    """
    return calls_its_argument(loss_module(loss), "refresh")
