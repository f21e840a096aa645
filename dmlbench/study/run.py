"""A run: a data set, a backbone, a loss and a seed, with the two keys of their results.

A training is done again if its `train_key` changes, a scoring if its `eval_key` does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, NamedTuple

from dmlbench.backbones.catalogue import backbone_module, timm_weights
from dmlbench.backbones.weights import checkpoint_file
from dmlbench.datasets import load
from dmlbench.datasets.store.checks import read_manifest
from dmlbench.datasets.store.duplicates_file import HOLDOUT, SEARCH
from dmlbench.datasets.store.format import FORMAT, VALIDATION
from dmlbench.losses._catalogue import loss_module
from dmlbench.study.backbone_settings import Backbone
from dmlbench.study.poincare_ball import PoincareBall, poincare_ball
from dmlbench.study.reality_check import MODELS, REALITY_CHECK
from dmlbench.study.row_names import control_kind, is_external, is_trained
from dmlbench.study.search_space import search_space
from dmlbench.study.settings import Dataset, Evaluation, Recipe
from dmlbench.study.tuning_settings import Tuning
from dmlbench.utils.declarations import read_declarations
from dmlbench.utils.fingerprint import code_digest

FEATURES = "dmlbench.training.features"
"""The module that computes the features of a frozen trunk."""
METRICS = "dmlbench.evaluation.evaluate"
"""The module that scores embeddings."""
GPU_SCORING_IMAGES = 20_000
"""From this number of test images on, a GPU computes the scores if there is one. For fewer images a
CPU takes at most a few seconds longer than a GPU takes to start."""


class ResolvedDataset(NamedTuple):
    """A data set of a study, with its facts."""

    dataset: str
    """Its name in the study."""
    data: Dataset
    facts: Mapping[str, Any]
    """What the file of its type declares; for the user's own data, what its CSV holds."""


@dataclass(frozen=True)
class Run:
    """A data set, a backbone, a loss and a seed, with everything that decides their results.

    All seeds of a data set, a backbone and a loss are a cell of the grid.
    """

    dataset: str
    backbone: str
    loss: str
    seed: int
    data: Dataset
    facts: Mapping[str, Any]
    model: Backbone
    loss_type: str
    loss_options: Mapping[str, Any]
    recipe: Recipe
    evaluation: Evaluation
    test_on: ResolvedDataset | None = None
    """The data set that it is tested on; None if that is the one that it is trained on."""
    tuning: Tuning | None = None
    """How the settings of its training are chosen; None if they are those that stand here."""
    last_epoch: int | None = None
    """The training ends after this epoch, with the schedule of all epochs of the recipe; None: it
    ends after the last one."""
    protocol: str = "standard"
    """How many models it trains, and how they are scored: a value of `protocol` of a study."""
    report_optimism: bool = False
    """Whether the test images are embedded after each epoch too. No result is chosen by it."""

    @property
    def cell(self) -> str:
        """`dataset/backbone/loss`: what all its seeds have in common."""
        return f"{self.dataset}/{self.backbone}/{self.loss}"

    @property
    def path(self) -> str:
        """`dataset/backbone/loss/seed0`: its name in the study, and its folder."""
        return f"{self.dataset}/{self.backbone}/{self.loss}/seed{self.seed}"

    @property
    def control(self) -> str | None:
        """The name of this control, as `random`; None if this is no control."""
        return control_kind(self.loss)

    @property
    def trains(self) -> bool:
        """Whether this is a training: neither a control nor external embeddings."""
        return is_trained(self.loss)

    @property
    def uses_model(self) -> bool:
        """Whether a model computes the embeddings. If not, a GPU has nothing to do."""
        return self.trains or self.control in ("untrained", "untrained_pca", "frozen")

    @property
    def models(self) -> int:
        """The number of models that it trains, one after the other."""
        return MODELS if self.protocol == REALITY_CHECK and self.trains else 1

    @property
    def embedding_dim(self) -> int:
        """The dimension of its embeddings: those of all its models side by side."""
        return self.models * self.model.dim

    @property
    def reads_training_images(self) -> bool:
        """Whether its numbers depend on the training images."""
        return self.trains or self.control == "untrained_pca"

    @property
    def tree(self) -> str | None:
        """The picture of the tree of classes that its loss learns; None if it learns none.

        The seeds of a cell share one picture. It shows the first seed that has a tree.
        """
        if not self.trains or self.models > 1:
            return None
        constants = read_declarations(loss_module(self.loss_type)).constants
        picture = f"trees/{self.dataset}/{self.backbone}/{self.loss}"
        return picture if constants.get("GIVES_TREE") else None

    @property
    def ball(self) -> PoincareBall | None:
        """The ball in which its embeddings are compared by hyperbolic distance; None if cosines
        compare them, as those of controls and external embeddings."""
        return poincare_ball(self.loss_type, self.loss_options) if self.trains else None

    @property
    def embeddings(self) -> Path | None:
        """The file of external embeddings that this run scores; None for any other run."""
        return Path(self.loss_options["file"]) if is_external(self.loss) else None

    @property
    def weights(self) -> str | None:
        """Name of the staged weights that the model starts from, if any."""
        is_staged = self.model.pretrained is True
        return timm_weights()[self.model.type] if is_staged else None

    @cached_property
    def first_weights(self) -> bool | str:
        """What the model starts from: the digest of a file, or the name of staged weights; False
        for random weights."""
        if isinstance(self.model.pretrained, str):
            return _file_digest(checkpoint_file(self.model.type, self.model.pretrained))
        return f"timm:{self.weights}" if self.weights else False

    @cached_property
    def store(self) -> str:
        """Name of the folder of packed images.

        A change of the facts, the checksums or the format gives another name. So a store is packed
        once and never changes. For a data set with options, the name begins with that of its entry.
        Entries with a holdout differ in their split alone, so those of equal options share a store.
        """
        named = self.data.options and not self.data.holdout
        name = self.dataset if named else self.data.type
        suffix = "" if self.data.store == "pixels" else f"-{self.data.store}"
        shared = [self.data.options] if self.data.options and self.data.holdout else []
        digest = json_key(FORMAT, self.facts, self.data.checksums, *shared)[:8]
        return f"{name}-{self.model.side}{suffix}-{digest}"

    @property
    def has_archives(self) -> bool:
        """Whether `store` is packed from archives, which have to be fetched."""
        return bool(load(self.data.type, self.data.options).SOURCES)

    @cached_property
    def tested(self) -> Run:
        """This run, with the data set of its test in place of the one that it is trained on."""
        if self.test_on is None:
            return self
        return replace(self, **self.test_on._asdict(), test_on=None)

    @property
    def searched(self) -> tuple[str, str]:
        """What is searched for near-duplicates of its training images, as of `duplicates_path`."""
        return HOLDOUT if self.data.holdout else self.store, self.tested.store

    @property
    def stores(self) -> list[str]:
        """Names of the stores that it reads."""
        training = [self.store] if self.reads_training_images else []
        names = [*training, self.tested.store]
        return [*dict.fromkeys(names)]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings that can change the training's numbers: no names, no paths."""
        if self.embeddings:
            digest = _file_digest(self.embeddings)
            return {"dataset": data_settings(self.tested), "embeddings": digest}
        unused = {"patience"} if self.models == 1 else set()
        model = self.model.model_dump(mode="json", exclude={"recipe"})
        if self.model.is_frozen:
            unused |= {"warmup_steps", "gpu_compile"}
            unused |= {"augmentation"} if not self.model.views else set()
        else:
            del model["trunk"], model["views"]
        if self.recipe.chunk is None:  # so it is in no key of a study from before this setting
            unused.add("chunk")
        recipe = self.recipe.model_dump(mode="json", exclude=unused)
        if self.control:
            # freeze_bn counts: folded into the convolutions, batch norm rounds differently
            names = ("pooling", "freeze_bn", "gpu_precision", "cpu_threads")
            recipe = {name: recipe[name] for name in names}
        model["pretrained"] = self.first_weights
        return {
            "dataset": data_settings(self),
            **({"test": data_settings(self.tested)} if self.test_on else {}),
            "backbone": model,
            "loss": {"type": self.loss_type, **self.loss_options},
            "recipe": recipe,
            "seed": self.seed,
            **({"protocol": self.protocol} if self.models > 1 else {}),
            **({"last_epoch": self.last_epoch} if self.last_epoch else {}),
            **({"tuning": self._tuning_settings(self.tuning)} if self.tuning else {}),
        }

    def _tuning_settings(self, tuning: Tuning) -> dict[str, Any]:
        """What is searched and how it is scored; the number of trials does not count."""
        space = {
            d.name: [d.low, d.high, "log" if d.log else "linear"]
            for d in search_space(self, tuning)
        }
        return {**tuning.validation, "space": space}

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that make the training's numbers, with what they import: the training core,
        this loss and this backbone."""
        if self.embeddings:
            return ("dmlbench.training.external_embeddings",)
        return (
            "dmlbench.training.train",
            "dmlbench.datasets.store.reader",
            "dmlbench.training.controls" if self.control else loss_module(self.loss_type),
            backbone_module(self.model.type),
            *([FEATURES] if self.model.is_frozen else []),
            *(["dmlbench.tuning.reality_check"] if self.models > 1 else []),
        )

    @cached_property
    def train_key(self) -> str:
        """Digest of `settings` and of the code of `modules`. Nothing else retrains a run."""
        return json_key(self.settings, code_digest(*self.modules))

    @cached_property
    def metric_settings(self) -> dict[str, Any]:
        """The settings that can change the scores of given embeddings."""
        settings = self.evaluation.model_dump(mode="json")
        test = self.tested
        entries = settings["recall_at"] or self.data.recall_at or test.data.recall_at
        chosen = entries or test.facts["recall_at"]
        return {
            **settings,
            "recall_at": [*chosen],
            **({"protocol": self.protocol} if self.protocol == REALITY_CHECK else {}),
            **({"optimism": True} if self.report_optimism else {}),
            **({"poincare_ball": self.ball._asdict()} if self.ball else {}),
            "near_duplicates": {
                "mirrored": self.recipe.augmentation.flip,
                **({"dataset": data_settings(self)} if self.test_on else {}),
            },
        }

    @property
    def metric_modules(self) -> tuple[str, ...]:
        """The modules that make its scores, with what they import."""
        return (
            METRICS,
            *(["dmlbench.evaluation.models"] if self.protocol == REALITY_CHECK else []),
            *(["dmlbench.evaluation.optimism"] if self.report_optimism else []),
            "dmlbench.evaluation.quality",
            SEARCH,
        )

    @cached_property
    def eval_key(self) -> str:
        """Digest of `train_key`, `metric_settings` and the code of the metrics."""
        return json_key(self.train_key, self.metric_settings, code_digest(*self.metric_modules))


def data_settings(run: Run) -> dict[str, Any]:
    """The settings of the data set of `run` that can change a number."""
    data: dict[str, Any] = {
        "type": run.data.type,
        "class_fraction": run.data.class_fraction,
        "facts": dict(run.facts),
    }
    if run.data.holdout:
        data["holdout"] = run.data.holdout
    if run.data.store != "pixels":
        data["store"] = run.data.store
    return data


@cache
def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{file_digest(file, 'sha256').hexdigest()}"


def json_key(*parts: Any) -> str:
    """16 hex digits over `parts` as one canonical JSON string."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return sha256(text.encode()).hexdigest()[:16]


def count_images(run: Run, store: Path) -> dict[str, int] | None:
    """Split -> number of images of the run's data set, by its own split, of all its classes; None
    if nobody has counted them.

    The numbers come from the facts, from the packed `store`, or from ABOUT of the data set.
    """
    splits = run.facts.get("splits")
    if splits is None:
        splits = read_manifest(store).get("splits") or _estimated_splits(run.data)
    return {split: count for split, (_, count) in splits.items()} if splits else None


def count_training_images(counts: Mapping[str, float]) -> float:
    """The images that train, by the `counts` of a data set: its own validation part trains too.

    >>> count_training_images({"train": 8, "validation": 2, "test": 9})
    10
    """
    return counts.get("train", 0) + counts.get(VALIDATION, 0)


def _estimated_splits(data: Dataset) -> dict[str, list[int]] | None:
    """ABOUT of a data set; None if it has none."""
    if data.options:
        return getattr(load(data.type, data.options), "ABOUT", None)
    return read_declarations(f"dmlbench.datasets.{data.type}").constants.get("ABOUT")
