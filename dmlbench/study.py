"""A study: a checked settings file, the grid of its runs, and their keys.

A study file defines in mappings (`losses`, `backbones`, `datasets`) and selects in lists
(`plan`), because Snakemake merges mappings and replaces lists. Loading one imports no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from dmlbench import installed, source
from dmlbench.datasets import list_datasets
from dmlbench.losses import list_losses
from dmlbench.problems import StudyError, describe, did_you_mean
from dmlbench.settings import Backbone, Dataset, Evaluation, Recipe, Settings

CONTROL = "control_"


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

    @property
    def path(self) -> str:
        return f"{self.dataset}/{self.backbone}/{self.loss}/seed{self.seed}"

    @property
    def control(self) -> str | None:
        """random, untrained or oracle where this is a control and no training."""
        return self.loss.removeprefix(CONTROL) if self.loss.startswith(CONTROL) else None

    @property
    def store(self) -> str:
        """Name of the folder of packed images."""
        return f"{self.data.type}-{self.model.side}"

    @property
    def store_facts(self) -> str:
        """What the store must hold, as one canonical JSON string."""
        return _canonical({"facts": self.facts, "checksums": self.data.checksums})

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings that can change the training's numbers: no names, no paths."""
        recipe = self.recipe.model_dump(mode="json")
        if self.control:
            recipe = {key: recipe[key] for key in ("pooling", "gpu_precision", "cpu_threads")}
        model = self.model.model_dump(mode="json", exclude={"recipe"})
        if isinstance(self.model.pretrained, str):
            model["pretrained"] = _file_digest(Path(self.model.pretrained))
        data = {"type": self.data.type, "class_fraction": self.data.class_fraction}
        return {
            "dataset": {**data, "facts": dict(self.facts)},
            "backbone": model,
            "loss": {"type": self.loss_type, **self.loss_options},
            "recipe": recipe,
            "seed": self.seed,
        }

    @cached_property
    def train_key(self) -> str:
        """Digest of the settings and of the code of the training core, this loss and this
        backbone - and nothing else, so that nothing else retrains."""
        what = "training.controls" if self.control else f"losses.{self.loss_type}"
        backbone = installed.backbone_module(self.model.type)
        code = source.digest("dmlbench.training.train", f"dmlbench.{what}", backbone)
        return _key(self.settings, code)

    @cached_property
    def metric_settings(self) -> dict[str, Any]:
        settings = self.evaluation.model_dump(mode="json")
        return {**settings, "recall_at": settings["recall_at"] or self.facts["recall_at"]}

    @cached_property
    def eval_key(self) -> str:
        """Digest of the training's key, the settings of the metrics and their code."""
        return _key(self.train_key, self.metric_settings, source.digest("dmlbench.evaluation"))


@dataclass(frozen=True)
class Study:
    settings: Settings
    runs: dict[str, Run]
    """By their path `dataset/backbone/loss/seed<k>`, in the order of the plan."""

    @property
    def name(self) -> str:
        return self.settings.study

    @property
    def folder(self) -> Path:
        return Path("results") / self.name

    @cached_property
    def stores(self) -> dict[str, Run]:
        """A run of each packed store, by the store's name."""
        return {run.store: run for run in self.runs.values()}

    @property
    def leaderboard_key(self) -> str:
        """Digest of all results that the leaderboard shows, and of its code."""
        return _key(
            {path: run.eval_key for path, run in self.runs.items()},
            source.digest("dmlbench.leaderboard"),
        )

    def tracking_key(self, uri: str) -> str:
        """Digest of all results that MLflow at `uri` is told of, and of the code that does."""
        return _key(
            self.leaderboard_key,
            uri,
            self.settings.track_embeddings,
            source.digest("dmlbench.tracking"),
        )

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The runs as the leaderboard's rows: their names, path and keys."""
        return [
            {
                "dataset": run.dataset,
                "backbone": run.backbone,
                "loss": run.loss,
                "seed": run.seed,
                "path": path,
                "train_key": run.train_key,
                "eval_key": run.eval_key,
            }
            for path, run in self.runs.items()
        ]

    def run(self, path: str) -> Run:
        try:
            return self.runs[path]
        except KeyError:
            hint = did_you_mean(path, self.runs)
            raise StudyError(self.name, [f"{path}: no such run in the plan. {hint}"]) from None


def read(path: str | Path) -> Study:
    """Read and check the study file `path` (YAML, or JSON as the workflow resolves it)."""
    try:
        settings = yaml.safe_load(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise StudyError(str(path), ["there is no such file."]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(str(path), [f"this is not YAML: {error}"]) from None
    return check(settings, str(path))


def check(settings: Any, file: str) -> Study:
    """Check `settings`, as read from `file`.

    Raises:
        StudyError: with all that is wrong in one message.
    """
    if not isinstance(settings, dict):
        raise StudyError(file, [f"it holds {type(settings).__name__}, and a study is a mapping."])
    try:
        checked = Settings.model_validate(settings)
    except ValidationError as error:
        raise StudyError(file, describe(error, Settings)) from None
    problems: list[str] = []
    runs = {run.path: run for run in _grid(checked, settings.get("recipe") or {}, problems)}
    if problems:
        raise StudyError(file, dict.fromkeys(problems))  # each once, in order
    return Study(checked, runs)


def _grid(settings: Settings, recipe: dict[str, Any], problems: list[str]) -> Iterator[Run]:
    """The runs of the plan; what is wrong with an entry is added to `problems`."""
    plan = settings.plan
    losses = {name: _loss(name, settings.losses, problems) for name in plan.losses}
    backbones = {name: _backbone(name, settings.backbones, problems) for name in plan.backbones}
    datasets = {name: _dataset(name, settings.datasets, problems) for name in plan.datasets}
    controls: dict[str, tuple[str, dict[str, Any]]] = {
        CONTROL + name: (CONTROL + name, {}) for name in plan.controls
    }
    for dataset, data in datasets.items():
        for backbone, model in backbones.items():
            if not (data and model):
                continue
            merged = _recipe(recipe, {f"backbones.{backbone}": model, f"datasets.{dataset}": data})
            if isinstance(merged, list):
                problems += merged
                continue
            for loss, found in {**controls, **losses}.items():
                if not found:
                    continue
                kind, options = found
                problems += _misfits(f"losses.{loss}", kind, options, merged)
                for seed in plan.seeds[:1] if loss in controls else plan.seeds:
                    yield Run(
                        dataset=dataset,
                        backbone=backbone,
                        loss=loss,
                        seed=seed,
                        data=data,
                        facts=_facts(data.type),
                        model=model,
                        loss_type=kind,
                        loss_options=options,
                        recipe=merged,
                        evaluation=settings.evaluation,
                    )


def _loss(
    name: str, entries: Mapping[str, dict[str, Any]], problems: list[str]
) -> tuple[str, dict[str, Any]] | None:
    """Type and resolved options of the loss `name`."""
    entry = dict(entries.get(name, {}))
    kind = str(entry.pop("type", name))
    path = f"losses.{name}"
    if name.startswith(CONTROL):
        problems.append(f"{path}: names that begin with {CONTROL} are the controls' own.")
    if kind not in list_losses():
        problems.append(f"{path}: no loss '{kind}'. {did_you_mean(kind, list_losses())}")
        return None
    model = _options_model(kind)
    try:
        return kind, model.model_validate(entry).model_dump(mode="json")
    except ValidationError as error:
        problems += describe(error, model, path)
        return None


def _backbone(
    name: str, entries: Mapping[str, dict[str, Any]], problems: list[str]
) -> Backbone | None:
    path = f"backbones.{name}"
    try:
        backbone = Backbone.model_validate({"type": name, **entries.get(name, {})})
    except ValidationError as error:
        problems += describe(error, Backbone, path)
        return None
    if installed.backbone_module(backbone.type) == "dmlbench.backbones.timm":
        models = installed.timm_models()
        if backbone.type.partition(".")[0] not in models:
            hint = did_you_mean(backbone.type, models)
            problems.append(f"{path}: timm has no model '{backbone.type}'. {hint}")
    weights = backbone.pretrained
    if isinstance(weights, str) and not Path(weights).is_file():
        problems.append(f"{path}.pretrained: there is no file {weights}. true takes timm's own.")
    return backbone


def _dataset(
    name: str, entries: Mapping[str, dict[str, Any]], problems: list[str]
) -> Dataset | None:
    path = f"datasets.{name}"
    try:
        dataset = Dataset.model_validate({"type": name, **entries.get(name, {})})
    except ValidationError as error:
        problems += describe(error, Dataset, path)
        return None
    if dataset.type not in list_datasets():
        hint = did_you_mean(dataset.type, list_datasets())
        problems.append(f"{path}: no data set '{dataset.type}'. {hint}")
        return None
    return dataset


def _recipe(
    recipe: dict[str, Any], overrides: Mapping[str, Backbone | Dataset]
) -> Recipe | list[str]:
    """The study's recipe with what its backbone and its data set need otherwise - or what is
    wrong with that."""
    try:
        merged = recipe
        path = "recipe"
        for place, entry in overrides.items():
            if entry.recipe:
                merged, path = {**merged, **entry.recipe}, f"{place}.recipe"
                Recipe.model_validate(merged)
        return Recipe.model_validate(merged)
    except ValidationError as error:
        return describe(error, Recipe, path)


def _misfits(path: str, kind: str, options: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """What the loss needs of the recipe and does not find there."""
    if kind.startswith(CONTROL):
        return []
    divisors = source.declarations(f"dmlbench.losses.{kind}").constants.get("BATCH_DIVISORS", ())
    product = math.prod(options[name] for name in divisors)
    if recipe.batch_size % product:
        terms = " x ".join(f"{name} {options[name]}" for name in divisors)
        return [f"{path}: {terms} does not divide the recipe's batch_size {recipe.batch_size}."]
    return []


@cache
def _options_model(kind: str) -> type[BaseModel]:
    """The options that a loss's file declares, as a model that checks them."""
    options: dict[str, Any] = source.declarations(f"dmlbench.losses.{kind}").options
    return create_model(kind, __config__=ConfigDict(extra="forbid"), **options)


def _facts(kind: str) -> dict[str, Any]:
    """What the data set's file declares of its images."""
    return source.declarations(f"dmlbench.datasets.{kind}").constants["FACTS"]


@cache
def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{file_digest(file, 'sha256').hexdigest()}"


def _key(*parts: Any) -> str:
    """16 hex digits over one canonical JSON string."""
    return sha256(_canonical(parts).encode()).hexdigest()[:16]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
