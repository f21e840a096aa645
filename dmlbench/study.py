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
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from dmlbench import installed, source
from dmlbench.datasets import DatasetError, list_datasets, load
from dmlbench.losses import list_losses
from dmlbench.problems import StudyError, describe, did_you_mean
from dmlbench.settings import Backbone, Dataset, Embeddings, Evaluation, Recipe, Settings

CONTROL = "control_"
EMBEDDINGS = "embeddings_"


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
    def uses_model(self) -> bool:
        """Whether there is anything for a GPU to do: vectors and labels need none."""
        return self.control == "untrained" or not self.loss.startswith((CONTROL, EMBEDDINGS))

    @property
    def embeddings(self) -> Path | None:
        """The file of embeddings where this run only scores what was made elsewhere."""
        return Path(self.loss_options["file"]) if self.loss.startswith(EMBEDDINGS) else None

    @property
    def store(self) -> str:
        """Name of the folder of packed images: other facts or archives, another folder, so that
        a store is made once and never again. An entry with options is a data set of its own."""
        name = self.dataset if self.data.options else self.data.type
        return f"{name}-{self.model.side}-{_key(self.facts, self.data.checksums)[:8]}"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings that can change the training's numbers: no names, no paths."""
        data = {"type": self.data.type, "class_fraction": self.data.class_fraction}
        data |= {"facts": dict(self.facts)}
        if self.embeddings:
            return {"dataset": data, "embeddings": _file_digest(self.embeddings)}
        recipe = self.recipe.model_dump(mode="json")
        if self.control:
            recipe = {key: recipe[key] for key in ("pooling", "gpu_precision", "cpu_threads")}
        model = self.model.model_dump(mode="json", exclude={"recipe"})
        if isinstance(self.model.pretrained, str):
            model["pretrained"] = _file_digest(Path(self.model.pretrained))
        return {
            "dataset": data,
            "backbone": model,
            "loss": {"type": self.loss_type, **self.loss_options},
            "recipe": recipe,
            "seed": self.seed,
        }

    @cached_property
    def train_key(self) -> str:
        """Digest of the settings and of the code of the training core, this loss and this
        backbone - and nothing else, so that nothing else retrains."""
        if self.embeddings:
            return _key(self.settings, source.digest("dmlbench.training.elsewhere"))
        loss = installed.loss_module(self.loss_type)
        what = "dmlbench.training.controls" if self.control else loss
        backbone = installed.backbone_module(self.model.type)
        core = ("dmlbench.training.train", "dmlbench.datasets.store")
        return _key(self.settings, source.digest(*core, what, backbone))

    @cached_property
    def metric_settings(self) -> dict[str, Any]:
        settings = self.evaluation.model_dump(mode="json")
        chosen = settings["recall_at"] or self.data.recall_at or self.facts["recall_at"]
        return {**settings, "recall_at": [*chosen]}

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
    except OSError as error:
        raise StudyError(str(path), [f"it cannot be read: {error.strerror}."]) from None
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
    # Entries that are not selected are looked at too: their time will come
    losses = {
        name: _loss(name, settings.losses, problems) for name in (*plan.losses, *settings.losses)
    }
    backbones = {
        name: _backbone(name, settings.backbones, problems)
        for name in (*plan.backbones, *settings.backbones)
    }
    datasets = {
        name: _dataset(name, settings.datasets, problems)
        for name in (*plan.datasets, *settings.datasets)
    }
    elsewhere = {name: _embeddings(name, settings, problems) for name in plan.embeddings}
    controls: dict[str, tuple[str, dict[str, Any]]] = {
        CONTROL + name: (CONTROL + name, {}) for name in plan.controls
    }
    for dataset, backbone in product(plan.datasets, plan.backbones):
        given = {
            EMBEDDINGS + name: (EMBEDDINGS, {"file": entry.file})
            for name, entry in elsewhere.items()
            if entry and entry.dataset == dataset
        }
        found_data, model = datasets[dataset], backbones[backbone]
        if found_data and model:
            data, facts = found_data
            problems += _missing_weights(f"backbones.{backbone}", model)
            merged = _recipe(recipe, {f"backbones.{backbone}": model, f"datasets.{dataset}": data})
            if isinstance(merged, list):
                problems += merged
                continue
            if merged.freeze_bn is None:
                merged = merged.model_copy(update={"freeze_bn": bool(model.pretrained)})
            chosen = {loss: losses[loss] for loss in plan.losses}
            for loss, found in {**controls, **given, **chosen}.items():
                if not found:
                    continue
                kind, options = found
                problems += _misfits(f"losses.{loss}", kind, options, merged)
                for seed in plan.seeds if loss in losses else plan.seeds[:1]:
                    yield Run(
                        dataset=dataset,
                        backbone=backbone,
                        loss=loss,
                        seed=seed,
                        data=data,
                        facts=facts,
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
    for prefix, whose in ((CONTROL, "the controls'"), (EMBEDDINGS, "the embeddings'")):
        if name.startswith(prefix):
            problems.append(f"{path}: names that begin with {prefix} are {whose} own.")
    try:
        model = _options_model(kind)
        return kind, model.model_validate(entry).model_dump(mode="json")
    except installed.UnusableLoss as error:
        hint = str(error) or did_you_mean(kind, {*list_losses(), *entries} - {name})
        problems.append(f"{path}: no loss '{kind}'. {hint}")
        return None
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
        if backbone.type not in models:
            hint = did_you_mean(backbone.type, models | (entries.keys() - {name}))
            problems.append(f"{path}: timm has no model '{backbone.type}'. {hint}")
            return None
    return backbone


def _missing_weights(path: str, backbone: Backbone) -> list[str]:
    weights = backbone.pretrained
    if isinstance(weights, str) and not Path(weights).is_file():
        return [f"{path}.pretrained: there is no file {weights}. true takes timm's own."]
    return []


def _dataset(
    name: str, entries: Mapping[str, dict[str, Any]], problems: list[str]
) -> tuple[Dataset, dict[str, Any]] | None:
    """The data set `name` and its facts: as the type's file declares them, or, of a type with
    options, as they are found."""
    path = f"datasets.{name}"
    entry = {"type": name, **entries.get(name, {})}
    kind, known = str(entry["type"]), list_datasets()
    if kind not in known:
        hint = did_you_mean(kind, {*known, *entries} - {name})
        problems.append(f"{path}: no data set '{kind}'. {hint}")
        return None
    declared = source.declarations(f"dmlbench.datasets.{kind}")
    options: dict[str, Any] = declared.options
    model = create_model(kind, __base__=Dataset, **options) if options else Dataset
    try:
        dataset = model.model_validate(entry)
    except ValidationError as error:
        problems += describe(error, model, path)
        return None
    if not options:
        return dataset, _facts(kind)
        return None
    try:
        return dataset, load(kind, dataset.options).FACTS
    except DatasetError as error:
        problems.append(f"{path}: {error}")
        return None


def _embeddings(name: str, settings: Settings, problems: list[str]) -> Embeddings | None:
    path, entry = f"embeddings.{name}", settings.embeddings.get(name)
    if not entry:
        hint = did_you_mean(name, settings.embeddings)
        problems.append(f"plan.embeddings: there is no {path}. {hint}")
    elif entry.dataset not in settings.plan.datasets:
        hint = did_you_mean(entry.dataset, settings.plan.datasets)
        problems.append(f"{path}.dataset: '{entry.dataset}' is not in plan.datasets. {hint}")
    elif not Path(entry.file).is_file():
        problems.append(f"{path}.file: there is no file {entry.file}.")
    else:
        return entry
    return None


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
    if kind.startswith((CONTROL, EMBEDDINGS)) or "." in kind:
        return []
    divisors = source.declarations(f"dmlbench.losses.{kind}").constants.get("BATCH_DIVISORS", ())
    whole = math.prod(options[name] for name in divisors)
    if not whole or recipe.batch_size % whole:
        terms = " x ".join(f"{name} {options[name]}" for name in divisors)
        return [f"{path}: {terms} does not divide the recipe's batch_size {recipe.batch_size}."]
    return []


@cache
def _options_model(kind: str) -> type[BaseModel]:
    """The options that a loss declares, as a model that checks them."""
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    return create_model(kind, __config__=config, **_options(kind))


def _options(kind: str) -> dict[str, Any]:
    """Type and default of each option of a loss, which is not imported for that; and the bounds
    in its file's constants LEAST (may be equal) and ABOVE (may not)."""
    package, dot, name = kind.partition(".")
    if not dot:
        if kind not in list_losses():
            raise installed.UnusableLoss
        declared = source.declarations(f"dmlbench.losses.{kind}")
        least, above = (declared.constants.get(name, {}) for name in ("LEAST", "ABOVE"))
        return {
            option: (type_, Field(default, ge=least.get(option), gt=above.get(option)))
            for option, (type_, default) in declared.options.items()
        }
    if package == "pml":
        losses = installed.pml_losses()
        if name not in losses:
            raise installed.UnusableLoss(did_you_mean(kind, (f"pml.{n}" for n in losses), 60))
        described = losses[name]
    else:
        described = installed.own_loss(kind)
    return {
        option: (source.annotation(text), default[0] if default else ...)
        for option, (text, *default) in described.items()
    }


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
