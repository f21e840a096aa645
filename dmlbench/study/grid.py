"""Settings -> the grid of runs. Every entry of a study is resolved and checked.

Problems are collected, not raised, so one message can name all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError, create_model

from dmlbench.backbones.catalogue import timm_models, timm_weights
from dmlbench.backbones.weights import package_weights
from dmlbench.datasets import list_datasets, load
from dmlbench.losses import list_losses
from dmlbench.study.backbone_settings import Backbone
from dmlbench.study.dataset_checks import dataset_problems, size_problems
from dmlbench.study.error_messages import describe_errors, show, show_text
from dmlbench.study.loss_options import options_model
from dmlbench.study.numbers import with_number_types
from dmlbench.study.plan import Plan
from dmlbench.study.reality_check import REALITY_CHECK
from dmlbench.study.row_names import CONTROL, EMBEDDINGS, is_trained
from dmlbench.study.run import ResolvedDataset, Run
from dmlbench.study.settings import Dataset, Embeddings, Recipe, Settings
from dmlbench.utils.declarations import read_declarations
from dmlbench.utils.errors import DatasetError, MissingWeights, UnusableLoss
from dmlbench.utils.reading import open_file
from dmlbench.utils.text import count_of, did_you_mean


class ResolvedLoss(NamedTuple):
    """A loss, a control or external embeddings: the type, and all options."""

    type: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Entries:
    """The entries of a study by their names, resolved. A wrong one is None."""

    losses: Mapping[str, ResolvedLoss | None]
    backbones: Mapping[str, Backbone | None]
    datasets: Mapping[str, ResolvedDataset | None]
    test_on: Mapping[str, ResolvedDataset | None]
    """Name of a data set -> the data set that it is tested on; None if that is itself."""
    embeddings: Mapping[str, Embeddings | None]
    """The external embeddings that the plan selects."""


def grid(settings: Settings, recipe: dict[str, Any], problems: list[str]) -> Iterator[Run]:
    """The runs of the plan, in its order.

    Args:
        recipe: the recipe as the study file has it; overrides of entries are merged into it.
        problems: every problem is added to this list.
    """
    plan = settings.plan
    entries = _resolve_entries(settings, problems)
    problems += _check_plan(plan, entries)
    for dataset, backbone in product(plan.datasets, plan.backbones):
        resolved, model = entries.datasets[dataset], entries.backbones[backbone]
        if not resolved or not model:
            continue
        overrides = {
            f"backbones.{backbone}.recipe": model.recipe,
            f"datasets.{dataset}.recipe": resolved.data.recipe,
        }
        merged = _merge_recipe(recipe, overrides, problems)
        if not merged:
            continue
        problems += size_problems(resolved, backbone, model, merged)
        problems += _check_patience(settings, dataset, backbone, merged)
        problems += _check_frozen(dataset, backbone, model, merged)
        if merged.freeze_bn is None:
            is_frozen = model.is_frozen or bool(model.pretrained)
            merged = merged.model_copy(update={"freeze_bn": is_frozen})
        for name, loss in _rows(plan, entries, dataset).items():
            if not loss or plan.leaves_out(dataset, backbone, name):
                continue
            problems += _check_divisors(name, loss, merged, backbone, model)
            for seed in plan.seeds if is_trained(name) else plan.seeds[:1]:
                yield Run(
                    dataset=dataset,
                    backbone=backbone,
                    loss=name,
                    seed=seed,
                    data=resolved.data,
                    facts=resolved.facts,
                    model=model,
                    loss_type=loss.type,
                    loss_options=loss.options,
                    recipe=merged,
                    evaluation=settings.evaluation,
                    test_on=entries.test_on[dataset],
                    tuning=settings.tuning if is_trained(name) else None,
                    protocol=settings.protocol,
                    report_optimism=settings.report_optimism and is_trained(name),
                )


def _resolve_entries(settings: Settings, problems: list[str]) -> Entries:
    """Resolve the entries of the plan, and also those that only a later plan may select."""
    plan = settings.plan
    losses = {
        name: _resolve_loss(name, settings.losses, problems)
        for name in (*plan.losses, *settings.losses)
    }
    backbones = {
        name: _resolve_backbone(name, settings.backbones, problems)
        for name in (*plan.backbones, *settings.backbones)
    }
    datasets = {
        name: _resolve_dataset(name, settings.datasets, problems)
        for name in (*plan.datasets, *settings.datasets)
    }
    test_on = {
        name: _resolve_test(dataset, settings.datasets, problems) if dataset else None
        for name, dataset in datasets.items()
    }
    embeddings = {name: _check_embeddings(name, settings, problems) for name in plan.embeddings}
    return Entries(losses, backbones, datasets, test_on, embeddings)


def _check_plan(plan: Plan, entries: Entries) -> Iterator[str]:
    """Problems with the selected entries and with the combinations that are left out."""
    for name in plan.datasets:
        if dataset := entries.datasets[name]:
            yield from dataset_problems(dataset, entries.test_on[name])
    for name in plan.backbones:
        if backbone := entries.backbones[name]:
            yield from _check_weights(name, backbone)
    sections = {"dataset": "datasets", "backbone": "backbones", "loss": "losses"}
    for number, rule in enumerate(plan.exclude):
        for axis, name in rule.names.items():
            section = sections[axis]
            planned = getattr(plan, section)
            if name not in planned:
                hint = did_you_mean(name, planned)
                yield f"plan.exclude.{number}.{axis}: '{name}' is not in plan.{section}. {hint}"
    cells = product(plan.datasets, plan.backbones, plan.losses)
    if plan.losses and all(plan.leaves_out(*cell) for cell in cells):
        yield "plan.exclude: it leaves no loss to run."


def _rows(plan: Plan, entries: Entries, dataset: str) -> dict[str, ResolvedLoss | None]:
    """The rows of `dataset` by their names: controls, external embeddings and losses."""
    controls = {CONTROL + name: ResolvedLoss(CONTROL + name, {}) for name in plan.controls}
    external = {
        EMBEDDINGS + name: ResolvedLoss(EMBEDDINGS, {"file": entry.file})
        for name, entry in entries.embeddings.items()
        if entry and entry.dataset == dataset
    }
    losses = {name: entries.losses[name] for name in plan.losses}
    return {**controls, **external, **losses}


def _resolve_loss(
    name: str, entries: Mapping[str, dict[str, Any]], problems: list[str]
) -> ResolvedLoss | None:
    """The type of the loss `name`, and its options with their defaults."""
    entry = dict(entries.get(name, {}))
    kind = entry.pop("type", name)
    path = f"losses.{name}"
    if not isinstance(kind, str):
        problems.append(f"{path}.type: found {show(kind)}. Allowed: the name of a loss.")
        return None
    for prefix, rows in ((CONTROL, "controls"), (EMBEDDINGS, "external embeddings")):
        if name.startswith(prefix):
            problems.append(f"{path}: names that begin with {prefix} are reserved for {rows}.")
    try:
        model = options_model(kind)
        return ResolvedLoss(kind, model.model_validate(entry).model_dump(mode="json"))
    except UnusableLoss as error:
        hint = str(error) or did_you_mean(kind, {*list_losses(), *entries} - {name})
        problems.append(f"{path}: no loss {show(kind)}. {hint}")
        return None
    except ValidationError as error:
        problems += describe_errors(error, model, path)
        return None


def _resolve_backbone(
    name: str, entries: Mapping[str, dict[str, Any]], problems: list[str]
) -> Backbone | None:
    path = f"backbones.{name}"
    try:
        backbone = Backbone.model_validate({"type": name, **entries.get(name, {})})
    except ValidationError as error:
        problems += describe_errors(error, Backbone, path)
        return None
    models = timm_models()
    if backbone.type not in models:
        hint = did_you_mean(backbone.type, models | (entries.keys() - {name}))
        problems.append(f"{path}: timm has no model {show(backbone.type)}. {hint}".rstrip())
        return None
    return backbone


def _check_weights(name: str, backbone: Backbone) -> Iterator[str]:
    weights, path = backbone.pretrained, f"backbones.{name}.pretrained"
    if weights == "package":
        try:
            package_weights(backbone.type)
        except MissingWeights as error:
            yield f"{path}: {error}."
    elif isinstance(weights, str) and (problem := _file_problem(weights)):
        yield f"{path}: {problem} `true` takes timm's own weights."
    if weights is True and backbone.type not in timm_weights():
        yield f"{path}: timm has no weights for {backbone.type}."


def _resolve_dataset(
    name: str, entries: Mapping[str, dict[str, Any]], problems: list[str]
) -> ResolvedDataset | None:
    """The data set `name` with its facts.

    The file of its type declares the facts; for a type with options they depend on the options.
    """
    path = f"datasets.{name}"
    entry = {"type": name, **entries.get(name, {})}
    kind, known = entry["type"], list_datasets()
    if not isinstance(kind, str):
        problems.append(f"{path}.type: found {show(kind)}. Allowed: the name of a data set.")
        return None
    if kind not in known:
        hint = did_you_mean(kind, {*known, *entries} - {name})
        problems.append(f"{path}: no data set {show(kind)}. {hint}")
        return None
    declared = read_declarations(f"dmlbench.datasets.{kind}")
    options = with_number_types(declared.options)
    model = create_model(kind, __base__=Dataset, **options) if options else Dataset
    try:
        data = model.model_validate(entry)
    except ValidationError as error:
        problems += describe_errors(error, model, path)
        return None
    if not options:
        return ResolvedDataset(name, data, declared.constants["FACTS"])
    try:
        return ResolvedDataset(name, data, load(kind, data.options).FACTS)
    except DatasetError as error:
        problems.append(f"{path}: {error}")
        return None
    except OSError as error:
        file = show_text(str(error.filename))
        problems.append(f"{path}: {file} cannot be read: {error.strerror}.")
        return None


def _resolve_test(
    trained: ResolvedDataset, entries: Mapping[str, dict[str, Any]], problems: list[str]
) -> ResolvedDataset | None:
    """The other data set that `trained` is tested on; None if it is tested on itself."""
    name, other = trained.dataset, trained.data.test_on
    if not other:
        return None
    path = f"datasets.{name}.test_on"
    known = {*entries, *list_datasets()} - {name}
    if other not in known:
        hint = did_you_mean(other, known)
        problems.append(f"{path}: no other data set '{other}'. {hint}")
        return None
    tested = _resolve_dataset(other, entries, problems)
    if not tested:
        return None
    channels, seen = tested.facts["channels"], trained.facts["channels"]
    if channels != seen:
        problems.append(
            f"{path}: {other} has {count_of(channels, 'channel')}, and {name} has {seen}. A model "
            f"that is trained on one cannot take images of the other."
        )
        return None
    return tested


def _check_embeddings(name: str, settings: Settings, problems: list[str]) -> Embeddings | None:
    path, entry = f"embeddings.{name}", settings.embeddings.get(name)
    if not entry:
        hint = did_you_mean(name, settings.embeddings)
        problems.append(f"plan.embeddings: there is no {path}. {hint}")
    elif entry.dataset not in settings.plan.datasets:
        hint = did_you_mean(entry.dataset, settings.plan.datasets)
        problems.append(f"{path}.dataset: '{entry.dataset}' is not in plan.datasets. {hint}")
    elif problem := _file_problem(entry.file):
        problems.append(f"{path}.file: {problem}")
    else:
        return entry
    return None


def _file_problem(path: str) -> str | None:
    """Why the file at `path` cannot be read; None if it can."""
    shown = show_text(path)
    try:
        with open_file(Path(path)) as file:
            file.read(1)
    except FileNotFoundError:
        return f"there is no file {shown}."
    except IsADirectoryError:
        return f"{shown} is a folder."
    except OSError as error:
        return f"{shown} cannot be read: {error.strerror}."
    return None


def _merge_recipe(
    recipe: dict[str, Any], overrides: Mapping[str, dict[str, Any]], problems: list[str]
) -> Recipe | None:
    """The recipe of the study with `overrides`, key path -> settings, in their order."""
    merged, path = recipe, "recipe"
    try:
        for place, settings in overrides.items():
            if settings:
                merged, path = {**merged, **settings}, place
                Recipe.model_validate(merged)
        return Recipe.model_validate(merged)
    except ValidationError as error:
        problems += describe_errors(error, Recipe, path)
        return None


def _check_patience(
    settings: Settings, dataset: str, backbone: str, recipe: Recipe
) -> Iterator[str]:
    if recipe.patience is not None and settings.protocol != REALITY_CHECK:
        yield (
            f"backbones.{backbone} on {dataset}: recipe.patience: {recipe.patience} is not used by "
            f"protocol: {settings.protocol}, which trains all epochs. Leave it out, or set "
            f"`protocol: {REALITY_CHECK}`."
        )


def _check_frozen(dataset: str, backbone: str, model: Backbone, recipe: Recipe) -> Iterator[str]:
    if model.is_frozen and recipe.freeze_bn is False:
        yield (
            f"backbones.{backbone} on {dataset}: recipe.freeze_bn: false does not go with trunk: "
            f"frozen, which keeps all of the backbone as it is. Set `recipe: {{freeze_bn: true}}` "
            f"under backbones.{backbone}."
        )


def _check_divisors(
    name: str, loss: ResolvedLoss, recipe: Recipe, backbone: str, model: Backbone
) -> Iterator[str]:
    """Problems of a loss with the batch size of its recipe or the dimension of its backbone.

    A loss's file names options in BATCH_DIVISORS and DIM_DIVISORS. Their product must divide the
    batch size, or the dimension of the embedding.
    """
    if not is_trained(name) or "." in loss.type:
        return
    constants = read_declarations(f"dmlbench.losses.{loss.type}").constants
    for constant, text, size in (
        ("BATCH_DIVISORS", "the recipe's batch_size", recipe.batch_size),
        ("DIM_DIVISORS", f"the dim of backbones.{backbone}", model.dim),
    ):
        divisors = constants.get(constant, ())
        divisor = math.prod(loss.options[option] for option in divisors)
        if not divisor or size % divisor:
            terms = " x ".join(f"{option} {loss.options[option]}" for option in divisors)
            yield f"losses.{name}: {terms} does not divide {text} {size}."
