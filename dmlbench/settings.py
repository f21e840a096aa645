"""The settings of a study file, as pydantic models: types, defaults, and what each means.

They refuse unknown keys, and write the schema for editors (`dmlbench schema`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dmlbench.gpus import MOST

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]
Fraction = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Checksum = Annotated[str, Field(pattern=r"^(md5|sha1|sha256|sha512):[0-9a-f]+$")]
Rate = Annotated[float, Field(ge=0)]
Control = Literal["random", "untrained", "oracle"]


class Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Jitter(Model):
    """How much colours change, as torchvision's ColorJitter means it; 0: not at all."""

    brightness: Rate = 0.0
    """0.4: each image's is multiplied by a factor from 0.6 to 1.4."""
    contrast: Rate = 0.0
    """0.4: its differences from its mean gray are, by a factor from 0.6 to 1.4."""
    saturation: Rate = 0.0
    """0.4: its differences from its own gray are, by a factor from 0.6 to 1.4."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """0.1: turned by up to a tenth of the circle, either way."""


class Augmentation(Model):
    """Random resized crop, flip and colour jitter, as the field defines them."""

    crop_scale: tuple[Fraction, Fraction] = (0.16, 1.0)
    """Least and largest share of the image's area that a crop covers."""
    crop_ratio: tuple[float, float] = (0.75, 1.3333)
    """Least and largest aspect ratio of a crop."""
    flip: bool = True
    """Mirror half of the images left to right. Not for letters."""
    jitter: Jitter = Jitter()
    """Change the colours of each image, in an order of its own."""

    @model_validator(mode="after")
    def _ordered(self) -> Augmentation:
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}: [{low}, {high}] is not an interval above 0")
        return self


class Recipe(Model):
    """How every loss of the study is trained: one recipe for all, that is what makes it fair."""

    epochs: Count = 40
    """Passes over the training images; the last one's model is evaluated."""
    batch_size: Annotated[int, Field(ge=2)] = 112
    """Images a step. An epoch is `images // batch_size` steps for every loss."""
    images_per_class: Count | None = 4
    """K of P x K batches (P = batch_size / K classes); null: plain shuffling."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """adamw shrinks weights by lr x weight_decay; adam and sgd add weight_decay x weight to their
    gradient."""
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    """Learning rate of the backbone; a loss's own parameters multiply it by their factor."""
    head_lr_factor: Rate = 1.0
    """Learning rate of the embedding head, as a multiple of `lr`."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of sgd; beside another, which has none, it is refused."""
    eps: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-8
    """Of adamw and adam, added to the root of the mean squared gradient; beside sgd, which has
    none, it is refused."""
    weight_decay: Rate = 1e-4
    """Of trunk, head and the loss's own parameters."""
    schedule: Literal["constant", "cosine", "step"] = "constant"
    step_epochs: tuple[Count, ...] = ()
    """Of the step schedule: the epochs after which the learning rate is multiplied."""
    step_factor: Rate = 0.1
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """First steps in which only the head and the loss's own parameters learn."""
    clip_value: Annotated[float, Field(gt=0)] | None = None
    """Largest absolute value of a gradient's entry; null: no clipping."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradient of all parameters together; after `clip_value`; null: no
    clipping."""
    freeze_bn: bool | None = None
    """Batch norm of the trunk by its stored statistics, with its affine parameters fixed; null:
    where the backbone is pretrained."""
    pooling: str | None = None
    """timm's global_pool (avg, max, avgmax ...); null: the backbone's own."""
    augmentation: Augmentation = Augmentation()
    gpu_precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Autocast of the backbone on a GPU; losses are float32 always, and so is the CPU."""
    gpu_compile: bool = False
    """Train by torch.compile's kernels on a GPU; embeddings are made without. The first run
    compiles them, others find them in the data folder. Some are chosen by their speed: compiled
    anew, they may give other bits. Not measured yet."""
    cpu_threads: Count = 1
    """Threads of a training on CPU. Part of the key: other sums, other bits."""

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.schedule == "step" and not self.step_epochs:
            raise ValueError("schedule: step needs step_epochs, the epochs after which it steps")
        if self.images_per_class and self.batch_size % self.images_per_class:
            raise ValueError(
                f"batch_size: {self.batch_size} is not a multiple of "
                f"images_per_class: {self.images_per_class}"
            )
        # Ignored, it would still be in the key. The default is no setting: a study that is read
        # again as it was run has all of them
        ignored = "eps" if self.optimizer == "sgd" else "momentum"
        if (value := getattr(self, ignored)) != type(self).model_fields[ignored].default:
            raise ValueError(
                f"{ignored}: {value} is not used by optimizer: {self.optimizer}, which has none. "
                f"Leave it out; where an override changes the optimizer, set it back there to "
                f"{type(self).model_fields[ignored].default}"
            )
        return self


class Backbone(Model):
    """A model, the size of its images, and the embedding that its head gives."""

    type: str
    """`bn_inception`, or any model of timm, without or with the tag of its weights."""
    dim: Count = 512
    """Embedding dimension."""
    head: Literal["linear", "low_mid_high"] = "linear"
    """linear: one layer on the pooled features; low_mid_high: an embedding of dim / 3 from each of
    three depths, concatenated, as in RLL-(L,M,H)."""
    image_size: Annotated[int, Field(ge=8)] = 224
    """Side in pixels of what the backbone sees: a crop when training, the centre in a test."""
    resize: Count | None = None
    """Short side in pixels before the centre crop, and of the packed store; null: image_size."""
    pretrained: bool | str = False
    """true: the weights that timm knows, which `dmlbench weights` stages; a path: a safetensors or
    .pth file of one's own; false: random."""
    recipe: dict[str, Any] = {}
    """Settings of the recipe that this backbone needs otherwise, for every loss alike."""

    @property
    def side(self) -> int:
        return self.resize or self.image_size

    @model_validator(mode="after")
    def _fits_together(self) -> Backbone:
        if self.side < self.image_size:
            raise ValueError(f"resize: {self.side} is below image_size: {self.image_size}")
        if self.head == "low_mid_high" and self.dim % 3:
            raise ValueError(
                f"dim: {self.dim} is not a multiple of 3, which head: low_mid_high needs "
                f"(1536 = 3 x 512)"
            )
        return self


class Dataset(Model):
    """A data set, or a seeded part of one."""

    type: str
    class_fraction: Fraction = 1.0
    """Share of the classes of each split, drawn by a fixed seed within each super-class."""
    test_on: Name | None = None
    """Another data set, by its entry or type: what is trained on this one's training classes is
    tested on that one's test split."""
    checksums: dict[str, Checksum] = {}
    """Of archives that differ from the official ones: {file name: "md5:..."}."""
    store: Literal["pixels", "jpeg"] = "pixels"
    """How packed images are kept: decoded, or, where those would fill the disk, as JPEG files of
    quality 95, which take a quarter of the space and are decoded when they are read."""
    recall_at: tuple[Count, ...] | None = None
    """The K of its Recall@K, where `evaluation` says none; null: the type's own."""
    recipe: dict[str, Any] = {}
    """Settings of the recipe that this data set needs otherwise, for every loss alike."""

    @property
    def options(self) -> dict[str, Any]:
        """Options of its type alone, which a model made of both has beside these."""
        own = type(self).model_fields.keys() - Dataset.model_fields.keys()
        return {name: getattr(self, name) for name in type(self).model_fields if name in own}


class Embeddings(Model):
    """Embeddings that were made elsewhere, to be scored here."""

    dataset: Name
    file: str
    """.npz with `embeddings` (n, D), and `path` (of the images) or `id` (rows of the store's
    index.parquet): all test images, and others if you like."""


class Evaluation(Model):
    """How embeddings are scored."""

    recall_at: tuple[Count, ...] | None = None
    """The K of Recall@K; null: the data set's own."""
    kmeans_seed: Seed = 0
    kmeans_iterations: Count = 20
    kmeans_restarts: Count = 3
    threads: Count = 1


class Exclude(Model):
    """Combinations that are not run: those that have all the names given here."""

    dataset: Name | None = None
    backbone: Name | None = None
    loss: Name | None = None
    """null: every loss, and with them the controls and the embeddings made elsewhere."""

    @property
    def names(self) -> dict[str, str]:
        return self.model_dump(exclude_none=True)

    @model_validator(mode="after")
    def _of_something(self) -> Exclude:
        if not self.names:
            raise ValueError("exclude needs a dataset, a backbone or a loss")
        return self


class Plan(Model):
    """What is run: every combination of these. Each name stands under its mapping, or is a type
    with its defaults."""

    datasets: Annotated[tuple[Name, ...], Field(min_length=1)]
    backbones: Annotated[tuple[Name, ...], Field(min_length=1)]
    losses: Annotated[tuple[Name, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    controls: tuple[Control, ...] = get_args(Control)
    """Rows that need no training: random vectors, the model before its first step, the labels."""
    embeddings: tuple[Name, ...] = ()
    """Rows of embeddings that were made elsewhere: names under `embeddings`."""
    exclude: tuple[Exclude, ...] = ()
    """Combinations to leave out: [{dataset: sop, loss: htl}, {dataset: sop, backbone: big}, ...]"""

    def leaves_out(self, dataset: str, backbone: str, loss: str) -> bool:
        cell = {"dataset": dataset, "backbone": backbone, "loss": loss}.items()
        return any(rule.names.items() <= cell for rule in self.exclude)

    @field_validator("exclude", mode="before")
    @classmethod
    def _list_of_mappings(cls, rules: Any) -> Any:
        if not isinstance(rules, list | tuple) or not all(isinstance(r, dict) for r in rules):
            raise ValueError(f"found {rules!r}, not a list as [{{dataset: ..., loss: ...}}]")
        return rules

    @model_validator(mode="after")
    def _no_twice(self) -> Plan:
        for field in type(self).model_fields:
            values = getattr(self, field)
            for value in values:
                if values.count(value) > 1:
                    raise ValueError(f"{field}: {value} stands there twice")
        return self


class Settings(Model):
    """A study file."""

    study: Name
    """Its results stand in results/<study>/."""
    track: Literal["fair", "paper"] = "fair"
    """fair: one recipe for all losses. paper: a paper's own recipe, whose results stand beside
    what was published."""
    plan: Plan
    recipe: Recipe = Recipe()
    losses: dict[Name, dict[str, Any]] = {}
    """name: {type: ..., and the loss's own options}."""
    backbones: dict[Name, dict[str, Any]] = {}
    datasets: dict[Name, dict[str, Any]] = {}
    """name: {type: ..., and the type's own options}."""
    embeddings: dict[Name, Embeddings] = {}
    evaluation: Evaluation = Evaluation()
    published: dict[Name, Name] = {}
    """Of the paper track: {loss: system of dmlbench/leaderboard/published.csv} where their names
    differ."""
    unconfirmed: dict[str, str] = {}
    """{key path in this study: remark} of values that no source confirms, such as `recipe.lr: from
    memory of the paper`; the leaderboard lists them."""
    deviations: dict[str, str] = {}
    """{key path in this study: remark} where the study knowingly departs from the paper; the
    leaderboard lists them."""
    keep_model: bool = False
    """Keep the trained weights as model.safetensors, of runs that are trained from then on."""
    runs_per_gpu: Annotated[int, Field(ge=1, le=MOST, strict=True)] = 1
    """How many jobs share a GPU; 1: each has its own. More pay where one leaves most of a GPU idle,
    as trainings of small models on small images do; they share its memory too. Nothing on SLURM,
    which gives each job a GPU of its own."""
    tracking: bool = True
    """Write the results to MLflow when the table is made."""
    track_embeddings: bool = False
    """Copy each run's embeddings to MLflow too; megabytes each."""

    @model_validator(mode="after")
    def _experiment_of_its_own(self) -> Settings:
        if self.tracking and self.study == "Default":
            raise ValueError("study: Default is MLflow's own experiment: take another name")
        return self
