"""The settings of a study file as pydantic models: types, defaults and meanings.

They refuse unknown keys. The schema for editors (`dmlbench schema`) and the page docs/settings.md
are written from them.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from dmlbench.datasets.archives.checksums import parse_checksum
from dmlbench.datasets.store.part import Part
from dmlbench.study.cluster import Cluster
from dmlbench.study.model import Model
from dmlbench.study.numbers import AS_NUMBER
from dmlbench.study.plan import Plan
from dmlbench.study.setting_types import (
    LARGEST_LR,
    MAX_NAMES,
    Area,
    BatchSize,
    EntriesByName,
    Epoch,
    Factor,
    Fraction,
    GradientLimit,
    Images,
    Iterations,
    LearningRate,
    Name,
    Ratio,
    RecallAt,
    RemarksByPath,
    Restarts,
    Seed,
    StepEpochs,
    Steps,
    Strength,
    Threads,
)
from dmlbench.study.study_names import name_problem
from dmlbench.study.tuning_settings import Tuning
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.gpu_lease import MAX_RUNS_PER_GPU


class Jitter(Model):
    """How much the colours change, as in torchvision's ColorJitter. 0 changes nothing."""

    brightness: Strength = 0.0
    """0.4 multiplies the brightness of an image by a factor from 0.6 to 1.4."""
    contrast: Strength = 0.0
    """0.4 multiplies the difference of each pixel from the mean gray of its image by a factor from
    0.6 to 1.4."""
    saturation: Strength = 0.0
    """0.4 multiplies the difference of each pixel from its own gray by a factor from 0.6 to 1.4."""
    hue: Annotated[float, Field(ge=0, le=0.5), AS_NUMBER] = 0.0
    """0.1 turns the hue by up to a tenth of the colour circle, in either direction."""


class Augmentation(Model):
    """The usual augmentation of the field: random resized crop, flip and colour jitter."""

    crop_scale: tuple[Area, Area] = (0.16, 1.0)
    """A crop covers a share of the image's area between these two."""
    crop_ratio: tuple[Ratio, Ratio] = (0.75, 1.3333)
    """The aspect ratio of a crop, width over height, lies between these two."""
    flip: bool = True
    """Mirror half of the images left to right. Switch it off for letters and digits."""
    jitter: Jitter = Jitter()
    """Change the colours of each image. The order of the four changes is random."""

    @model_validator(mode="after")
    def _ordered(self) -> Augmentation:
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: [{low}, {high}] is not an interval, low before high")
        return self


class Recipe(Model):
    """How the study trains every loss. One recipe for all of them makes the comparison fair."""

    epochs: Epoch = 40
    """Pass over the training images this many times. The model after the last pass is evaluated."""
    patience: Epoch | None = None
    """With `protocol: reality_check`, end the training of a model after this many epochs without a
    better validation score. null trains all epochs."""
    batch_size: BatchSize = 112
    """Train on this many images per step. An epoch has `images // batch_size` steps for every
    loss."""
    images_per_class: Images | None = 4
    """Take this many images of each class in a batch, so a batch holds `batch_size /
    images_per_class` classes. null shuffles the images instead."""
    sampler: Literal["rounds", "per_batch"] = "rounds"
    """How the classes of a batch are drawn. rounds deals all classes in shuffled rounds, each as
    often as any other. per_batch draws them anew for each batch, as the usual M-per-class sampler
    does. It is refused with images_per_class: null."""
    chunk: Images | None = None
    """Embed a batch in chunks of this many images, so that memory is needed for the activations of
    one chunk. Each image is embedded twice, and the gradient is that of the whole batch. Batch norm
    must be frozen, and the backbone must have no dropout. null embeds the batch at once."""
    optimizer: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    """adamw shrinks the weights by `lr` x `weight_decay`. adam, sgd and rmsprop add `weight_decay`
    x weight to the gradient."""
    lr: LearningRate = 1e-4
    """The learning rate of the backbone. The parameters of a loss learn at a multiple of it, which
    is an option of the loss."""
    head_lr_factor: Factor = 1.0
    """The embedding head learns at this multiple of `lr`."""
    momentum: Annotated[float, Field(ge=0, lt=1), AS_NUMBER] = 0.9
    """The momentum of sgd and rmsprop. It is refused with adamw and adam, which have none."""
    eps: Annotated[float, Field(gt=0, le=100), AS_NUMBER] = 1e-8
    """Add this to the denominator, the root of the mean squared gradient (adamw, adam and rmsprop).
    It is refused with sgd, which has none."""
    weight_decay: Strength = 1e-4
    """The weight decay of the backbone, the head and the parameters of the loss."""
    schedule: Literal["constant", "cosine", "step"] = "constant"
    """How the learning rate changes: constant keeps it, cosine lowers it to 0 at the end, and step
    multiplies it by `step_factor` after each of `step_epochs`."""
    step_epochs: StepEpochs = ()
    """With schedule: step, multiply the learning rate after each of these epochs."""
    step_factor: Strength = 0.1
    """With schedule: step, multiply the learning rate by this factor."""
    warmup_steps: Steps = 0
    """During this many first steps, only the head and the parameters of the loss learn."""
    clip_value: GradientLimit | None = None
    """Clip every entry of the gradient to this absolute value. null clips nothing."""
    clip_norm: GradientLimit | None = None
    """Scale the gradient of all parameters together down to this norm, after `clip_value`. null
    scales nothing."""
    freeze_bn: bool | None = None
    """Freeze the batch norm of the backbone: it uses its stored statistics, and its affine
    parameters do not learn. null freezes it if the backbone is pretrained."""
    bn_momentum: Annotated[float, Field(gt=0, le=1), AS_NUMBER] | None = None
    """With `freeze_bn: false`, the weight of a batch in the running statistics of all batch norms
    (torch's momentum). null keeps that of the model, mostly 0.1."""
    pooling: str | None = None
    """The `global_pool` of timm: avg, max, avgmax, and others. null keeps that of the backbone."""
    augmentation: Augmentation = Augmentation()
    """How training images are changed at random."""
    gpu_precision: Literal["bfloat16", "float32"] = "bfloat16"
    """The precision of the backbone on a GPU. bfloat16 (autocast) needs compute capability 8.0
    (NVIDIA's Ampere) or more. float32 is IEEE float32, without TF32. The head and the losses are
    always computed in IEEE float32, and so is everything on a CPU."""
    gpu_compile: bool = False
    """Train with the kernels of torch.compile on a GPU. Embeddings are computed without them. The
    first run compiles the kernels, and later runs find them in the data folder. torch chooses some
    of them by their speed, so a new compilation may give different bits; this is not measured
    yet."""
    cpu_threads: Threads = 1
    """Train with this many threads on a CPU. The number is part of the key: with another one, sums
    are added in another order and give different bits."""

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.schedule == "step" and not self.step_epochs:
            raise ValueError(
                "schedule: step needs step_epochs, the epochs after which the learning rate changes"
            )
        if self.images_per_class and self.batch_size % self.images_per_class:
            raise ValueError(
                f"batch_size: {self.batch_size} is not a multiple of "
                f"images_per_class: {self.images_per_class}"
            )
        if self.chunk is not None and self.chunk >= self.batch_size:
            raise ValueError(
                f"chunk: {self.chunk} is not below batch_size: {self.batch_size}, so there is "
                f"nothing to cut. Leave chunk out, or set it to null"
            )
        if self.schedule == "step" and self.step_factor > 1:
            exponent = math.log10(self.lr) + len(self.step_epochs) * math.log10(self.step_factor)
            if exponent > math.log10(LARGEST_LR):
                raise ValueError(
                    f"lr {self.lr:g} x step_factor {self.step_factor:g}, "
                    f"{len(self.step_epochs)} times, is above {LARGEST_LR}, the largest learning "
                    f"rate. Take a smaller step_factor"
                )
        if self.sampler == "per_batch" and self.images_per_class is None:
            raise ValueError(
                "sampler: per_batch is not used with images_per_class: null. Leave it out. If an "
                "override shuffles images, set it back there to rounds"
            )
        if self.bn_momentum is not None and self.freeze_bn is not False:
            raise ValueError(
                f"bn_momentum: {self.bn_momentum:g} is used only with freeze_bn: false. Set that, "
                f"or leave bn_momentum out. If an override freezes, set it to null there"
            )
        # An ignored setting would still be in the key. Its default is allowed: the settings that a
        # study was run with are read again, and hold all defaults
        ignored = {"sgd": ["eps"], "rmsprop": []}.get(self.optimizer, ["momentum"])
        for name in ignored:
            if (value := getattr(self, name)) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name}: {value} is not used by optimizer: {self.optimizer}, which has none. "
                    f"Leave it out. If an override changes the optimizer, set it back there to "
                    f"{type(self).model_fields[name].default}"
                )
        return self


class Dataset(Model):
    """A data set, or a part of its classes."""

    type: str
    """The data set: a name that `dmlbench list datasets` shows. `folder`, `csv` and `parquet` read
    your own images."""
    class_fraction: Fraction = 1.0
    """Use only this share of the classes of each split. It is drawn with a fixed seed within each
    super-class."""
    holdout: Literal["class", "level_1", "level_2"] | None = None
    """Make another split, in which a class, its nearest super-class (level_1), or the super-class
    one level higher (level_2) is unseen in training. All three have the same test classes and
    equally many training classes. null takes the split of the data set."""
    test_on: Name | None = None
    """Train on the training classes of this data set, and test on the test split of another one. It
    is named by its entry or type. null tests on this one."""
    checksums: dict[str, str] = {}
    """Expect these checksums of archives in place of the official ones: `{file name:
    "md5:..."}`."""
    store: Literal["pixels", "jpeg"] = "pixels"
    """pixels packs decoded images. jpeg packs JPEG files of quality 95, which take a quarter of the
    space and are decoded when they are read: use it for data that would fill the disk."""
    recall_at: RecallAt | None = None
    """The K of Recall@K, if `evaluation` does not set them. null takes those of the type."""
    recipe: dict[str, Any] = {}
    """Override these settings of the recipe for this data set, for every loss alike."""

    @field_validator("checksums")
    @classmethod
    def _with_algorithms(cls, checksums: dict[str, str]) -> dict[str, str]:
        try:
            return {name: parse_checksum(text, name) for name, text in checksums.items()}
        except DatasetError as error:
            raise ValueError(str(error).removeprefix("checksums: ")) from None

    @property
    def part(self) -> Part:
        """Which of its classes are used."""
        return Part(self.class_fraction, self.holdout)

    @property
    def options(self) -> dict[str, Any]:
        """The options of its type: the fields that a subclass adds to those of every data set."""
        names = [name for name in type(self).model_fields if name not in Dataset.model_fields]
        return {name: getattr(self, name) for name in names}


class Embeddings(Model):
    """Embeddings from another program, which are only scored here."""

    dataset: Name
    """The data set whose images were embedded. It must be in the plan."""
    file: str
    """The .npz file. It holds `embeddings` (n, D), and either `path` (of the images) or `id` (rows
    of the store's index.parquet). All test images must be in it; other images are ignored."""


class Evaluation(Model):
    """How embeddings are scored."""

    recall_at: RecallAt | None = None
    """The K of Recall@K. null takes those of the data set."""
    kmeans_seed: Seed = 0
    """The seed of k-means. NMI and AMI are computed from its clusters."""
    kmeans_iterations: Iterations = 20
    """Stop each start of k-means after this many iterations at the latest."""
    kmeans_restarts: Restarts = 3
    """Start k-means this many times. The start with the least inertia counts."""
    threads: Threads = 1
    """Score with this many threads on a CPU. No score depends on the number."""


class Report(Model):
    """Pages of pictures beside the leaderboard, from the test embeddings of the first seed."""

    galleries: bool = False
    """For each loss, show which images it retrieved and which classes it confused; and for each
    data set and backbone, what two losses disagree on. Controls have no pictures."""
    maps: Literal["none", "pca", "tsne"] = "none"
    """Draw a map of the test images by their embeddings. tsne takes about a minute for each loss
    and 10,000 images; pca takes a second."""

    @property
    def has_pictures(self) -> bool:
        return self.galleries or self.maps != "none"


class Settings(Model):
    """The keys at the top of a study file."""

    study: Name
    """The name of the study. Its results are in `results/<study>/`."""
    track: Literal["fair", "paper"] = "fair"
    """fair compares losses under one recipe. paper follows the recipe of a paper, and its table
    shows the published numbers next to the results."""
    plan: Plan
    """What the study runs."""
    recipe: Recipe = Recipe()
    """How every loss is trained."""
    losses: EntriesByName = {}
    """Losses by their names: `name: {type: ...}`, with options of the loss. A name that is a type
    needs no entry."""
    backbones: EntriesByName = {}
    """Backbones by their names: `name: {type: ...}`, with settings of the backbone."""
    datasets: EntriesByName = {}
    """Data sets by their names: `name: {type: ...}`, with settings of the data set and options of
    its type."""
    embeddings: Annotated[dict[Name, Embeddings], Field(max_length=MAX_NAMES)] = {}
    """External embeddings by their names."""
    evaluation: Evaluation = Evaluation()
    """How the embeddings of every run are scored."""
    tuning: Tuning | None = None
    """Tune every loss before it is tested, with the same number of trials. null trains every loss
    with the settings of this file."""
    protocol: Literal["standard", "reality_check"] = "standard"
    """standard tests one model of each run, trained on all training classes. reality_check follows
    Musgrave et al. (2020): four models, each trained without one of four blocks of training
    classes, which choose their epoch; their embeddings are scored separately and concatenated."""
    report_optimism: bool = False
    """Report also how much better a run would look if its epoch were chosen by its test score. No
    result is chosen by it. It costs an embedding of the test images after each epoch."""
    report: Report = Report()
    """Which pictures are made from the results."""
    published: Annotated[dict[Name, Name], Field(max_length=MAX_NAMES)] = {}
    """In the paper track, the published system of each loss whose name is not that of its system:
    `{loss: system}`, with a system of dmlbench/study/published.csv."""
    unconfirmed: RemarksByPath = {}
    """Remarks on values that no source confirms, by their key paths in this file: `recipe.lr: from
    memory of the paper`. The leaderboard lists them."""
    deviations: RemarksByPath = {}
    """Remarks on values in which the study knowingly departs from the paper, by their key paths in
    this file. The leaderboard lists them."""
    keep_model: bool = False
    """Keep the trained weights of each run as model.safetensors, from the next training on."""
    runs_per_gpu: Annotated[int, Field(ge=1, le=MAX_RUNS_PER_GPU), AS_NUMBER] = 1
    """Let this many jobs share a GPU. More than 1 may be faster if one job leaves most of a GPU
    idle, as small models on small images do. The jobs share its memory too. This does nothing on
    SLURM, which gives each job its own GPU."""
    cluster: Cluster = Cluster()
    """How jobs are submitted to a cluster. Locally, none of this is used."""
    tracking: bool = True
    """Write the results to MLflow after the leaderboard."""
    track_embeddings: bool = False
    """Copy the embeddings of each run to MLflow too. They take megabytes per run."""

    @field_validator("study")
    @classmethod
    def _free_name(cls, name: str) -> str:
        if problem := name_problem(name):
            raise ValueError(problem)
        return name

    @model_validator(mode="after")
    def _one_last_epoch(self) -> Settings:
        if self.report_optimism and self.protocol == "reality_check":
            raise ValueError(
                "report_optimism: with protocol: reality_check, each of the four models of a run "
                "chooses its own epoch, so a run has no last epoch to compare with. Leave one out"
            )
        return self

    @model_validator(mode="after")
    def _no_default_experiment(self) -> Settings:
        if self.tracking and self.study == "Default":
            raise ValueError("study: MLflow has an experiment Default already: take another name")
        return self
