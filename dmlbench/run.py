"""A run: one cell of a study's grid, and the two keys of its numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from dmlbench import installed, source
from dmlbench.datasets import FORMAT, load
from dmlbench.settings import Backbone, Dataset, Evaluation, Recipe

CONTROL = "control_"
EMBEDDINGS = "embeddings_"
METRICS = "dmlbench.evaluation"
"""The module that scores embeddings."""


@dataclass(frozen=True)
class Run:
    """One cell of the grid, with all that decides its numbers."""

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
    elsewhere: tuple[str, Dataset, Mapping[str, Any]] | None = None
    """Name, entry and facts of the data set that it is tested on, where that is another one."""

    @property
    def path(self) -> str:
        return f"{self.dataset}/{self.backbone}/{self.loss}/seed{self.seed}"

    @property
    def control(self) -> str | None:
        """random, untrained or oracle where this is a control and no training."""
        return self.loss.removeprefix(CONTROL) if self.loss.startswith(CONTROL) else None

    @property
    def trains(self) -> bool:
        """Whether this is a training: no control, no embeddings made elsewhere."""
        return not self.loss.startswith((CONTROL, EMBEDDINGS))

    @property
    def uses_model(self) -> bool:
        """Whether there is anything for a GPU to do: vectors and labels need none."""
        return self.control == "untrained" or self.trains

    @property
    def tree(self) -> str | None:
        """Name of the picture of the tree of classes that its loss learns, if it learns one: of
        the first seed that has it."""
        if not self.trains:
            return None
        declared = source.declarations(installed.loss_module(self.loss_type)).constants
        named = f"trees/{self.dataset}/{self.backbone}/{self.loss}"
        return named if declared.get("GIVES_TREE") else None

    @property
    def embeddings(self) -> Path | None:
        """The file of embeddings where this run only scores what was made elsewhere."""
        return Path(self.loss_options["file"]) if self.loss.startswith(EMBEDDINGS) else None

    @property
    def weights(self) -> str | None:
        """Name of the staged weights that the model starts from, if any."""
        is_staged = self.model.pretrained is True
        return installed.timm_weights()[self.model.type] if is_staged else None

    @property
    def store(self) -> str:
        """Name of the folder of packed images: other facts, archives or format, another folder, so
        that a store is made once and never again. An entry with options is a data set of its
        own."""
        name = self.dataset if self.data.options else self.data.type
        form = "" if self.data.store == "pixels" else f"-{self.data.store}"
        digest = key(FORMAT, self.facts, self.data.checksums)[:8]
        return f"{name}-{self.model.side}{form}-{digest}"

    @property
    def has_archives(self) -> bool:
        """Whether `store` is made of archives, which are fetched."""
        return bool(load(self.data.type, self.data.options).SOURCES)

    @cached_property
    def tested(self) -> Run:
        """This run with the data set of its test in place of the one that it is trained on."""
        if self.elsewhere is None:
            return self
        dataset, data, facts = self.elsewhere
        return replace(self, dataset=dataset, data=data, facts=facts, elsewhere=None)

    @property
    def stores(self) -> list[str]:
        """Names of the packed images that it reads."""
        both = [self.store, self.tested.store] if self.trains else [self.tested.store]
        return [*dict.fromkeys(both)]

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings that can change the training's numbers: no names, no paths."""
        if self.embeddings:
            return {**_images(self.tested), "embeddings": _file_digest(self.embeddings)}
        recipe = self.recipe.model_dump(mode="json")
        if self.control:
            # freeze_bn: folded into the convolutions, it rounds otherwise
            names = ("pooling", "freeze_bn", "gpu_precision", "cpu_threads")
            recipe = {name: recipe[name] for name in names}
        model = self.model.model_dump(mode="json", exclude={"recipe"})
        if isinstance(self.model.pretrained, str):
            model["pretrained"] = _file_digest(Path(self.model.pretrained))
        elif self.weights:
            model["pretrained"] = f"timm:{self.weights}"
        return {
            **_images(self),
            **({"test": _images(self.tested)["dataset"]} if self.elsewhere else {}),
            "backbone": model,
            "loss": {"type": self.loss_type, **self.loss_options},
            "recipe": recipe,
            "seed": self.seed,
        }

    @property
    def modules(self) -> tuple[str, ...]:
        """The code that makes the training's numbers: the training core, this loss and this
        backbone, with what they import."""
        if self.embeddings:
            return ("dmlbench.training.elsewhere",)
        loss = installed.loss_module(self.loss_type)
        what = "dmlbench.training.controls" if self.control else loss
        backbone = installed.backbone_module(self.model.type)
        return ("dmlbench.training.train", "dmlbench.datasets.store", what, backbone)

    @cached_property
    def train_key(self) -> str:
        """Digest of the settings and of the code of `modules` - and nothing else, so that nothing
        else retrains."""
        return key(self.settings, source.digest(*self.modules))

    @cached_property
    def metric_settings(self) -> dict[str, Any]:
        settings = self.evaluation.model_dump(mode="json")
        test = self.tested
        entries = settings["recall_at"] or self.data.recall_at or test.data.recall_at
        chosen = entries or test.facts["recall_at"]
        return {**settings, "recall_at": [*chosen]}

    @cached_property
    def eval_key(self) -> str:
        """Digest of the training's key, the settings of the metrics and their code."""
        return key(self.train_key, self.metric_settings, source.digest(METRICS))


def _images(run: Run) -> dict[str, Any]:
    """The images of a run, as its key holds them."""
    data: dict[str, Any] = {"type": run.data.type, "class_fraction": run.data.class_fraction}
    data |= {"facts": dict(run.facts)}
    if run.data.store != "pixels":
        data["store"] = run.data.store
    return {"dataset": data}


@cache
def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{file_digest(file, 'sha256').hexdigest()}"


def key(*parts: Any) -> str:
    """16 hex digits over one canonical JSON string."""
    return sha256(_canonical(parts).encode()).hexdigest()[:16]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
