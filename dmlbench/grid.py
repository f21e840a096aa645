"""Settings -> the grid of runs: every entry of a study resolved and checked.

What is wrong is collected, not raised, so that all of it is said at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from dmlbench import installed, source
from dmlbench.datasets import DatasetError, list_datasets, load
from dmlbench.losses import list_losses
from dmlbench.problems import describe, did_you_mean
from dmlbench.run import CONTROL, EMBEDDINGS, Run
from dmlbench.settings import Backbone, Dataset, Embeddings, Plan, Recipe, Settings


def grid(settings: Settings, recipe: dict[str, Any], problems: list[str]) -> Iterator[Run]:
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
    tests = {
        name: _test_on(name, found, settings.datasets, problems) for name, found in datasets.items()
    }
    for name in plan.datasets:
        resolved = datasets[name]
        if resolved and "train" not in resolved[1].get("splits", ["train"]):
            problems.append(
                f"datasets.{name}: it has no training split. Train on another data set, and give "
                f"that one `test_on: {name}`."
            )
    elsewhere = {name: _embeddings(name, settings, problems) for name in plan.embeddings}
    controls: dict[str, tuple[str, dict[str, Any]]] = {
        CONTROL + name: (CONTROL + name, {}) for name in plan.controls
    }
    for name in plan.backbones:
        problems += _missing_weights(name, backbones[name])
    problems += _wrong_excludes(plan)
    for dataset, backbone in product(plan.datasets, plan.backbones):
        given = {
            EMBEDDINGS + name: (EMBEDDINGS, {"file": entry.file})
            for name, entry in elsewhere.items()
            if entry and entry.dataset == dataset
        }
        found_data, model = datasets[dataset], backbones[backbone]
        if found_data and model:
            data, facts = found_data
            merged = _recipe(recipe, {f"backbones.{backbone}": model, f"datasets.{dataset}": data})
            if isinstance(merged, list):
                problems += merged
                continue
            if merged.freeze_bn is None:
                merged = merged.model_copy(update={"freeze_bn": bool(model.pretrained)})
            chosen = {loss: losses[loss] for loss in plan.losses}
            for loss, found in {**controls, **given, **chosen}.items():
                if not found or plan.leaves_out(dataset, backbone, loss):
                    continue
                kind, options = found
                problems += _misfits(
                    f"losses.{loss}",
                    kind,
                    options,
                    {
                        "BATCH_DIVISORS": ("the recipe's batch_size", merged.batch_size),
                        "DIM_DIVISORS": (f"the dim of backbones.{backbone}", model.dim),
                    },
                )
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
                        elsewhere=tests[dataset],
                    )


def _wrong_excludes(plan: Plan) -> Iterator[str]:
    """What is wrong with the combinations that are left out."""
    lists = {"dataset": "datasets", "backbone": "backbones", "loss": "losses"}
    for place, rule in enumerate(plan.exclude):
        for axis, name in rule.names.items():
            planned = getattr(plan, lists[axis])
            if name not in planned:
                hint = did_you_mean(name, planned)
                yield f"plan.exclude.{place}.{axis}: '{name}' is not in plan.{lists[axis]}. {hint}"
    cells = product(plan.datasets, plan.backbones, plan.losses)
    if all(plan.leaves_out(*cell) for cell in cells):
        yield "plan.exclude: it leaves no loss to run."


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
        model = options_model(kind)
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
    models = installed.timm_models()
    if backbone.type not in models:
        hint = did_you_mean(backbone.type, models | (entries.keys() - {name}))
        problems.append(f"{path}: timm has no model '{backbone.type}'. {hint}")
        return None
    return backbone


def _missing_weights(name: str, backbone: Backbone | None) -> list[str]:
    weights, path = backbone and backbone.pretrained, f"backbones.{name}.pretrained"
    if isinstance(weights, str) and not Path(weights).is_file():
        return [f"{path}: there is no file {weights}. true takes timm's own."]
    if backbone and weights is True and backbone.type not in installed.timm_weights():
        return [f"{path}: timm has no weights of {backbone.type}."]
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
        return dataset, declared.constants["FACTS"]
    try:
        return dataset, load(kind, dataset.options).FACTS
    except DatasetError as error:
        problems.append(f"{path}: {error}")
        return None


def _test_on(
    name: str,
    trained: tuple[Dataset, dict[str, Any]] | None,
    entries: Mapping[str, dict[str, Any]],
    problems: list[str],
) -> tuple[str, Dataset, dict[str, Any]] | None:
    """Name, entry and facts of the data set that the data set `name` is tested on, where that is
    another one."""
    if not trained or not (other := trained[0].test_on):
        return None
    path = f"datasets.{name}.test_on"
    known = {*entries, *list_datasets()} - {name}
    if other not in known:
        hint = did_you_mean(other, known)
        problems.append(f"{path}: no other data set '{other}'. {hint}")
        return None
    if not (found := _dataset(other, entries, problems)):
        return None
    if found[1]["channels"] != trained[1]["channels"]:
        problems.append(
            f"{path}: {other} has {found[1]['channels']} channels, and {name} has "
            f"{trained[1]['channels']}. What was trained on one cannot see the other."
        )
        return None
    return other, *found


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


def _misfits(
    path: str, kind: str, options: Mapping[str, Any], sizes: Mapping[str, tuple[str, int]]
) -> list[str]:
    """What the loss needs of the recipe or the backbone and does not find there: the options that
    its file's constants name must, multiplied, divide the sizes of the same names."""
    if kind.startswith((CONTROL, EMBEDDINGS)) or "." in kind:
        return []
    constants = source.declarations(f"dmlbench.losses.{kind}").constants
    problems = []
    for constant, (what, size) in sizes.items():
        divisors = constants.get(constant, ())
        whole = math.prod(options[name] for name in divisors)
        if not whole or size % whole:
            terms = " x ".join(f"{name} {options[name]}" for name in divisors)
            problems.append(f"{path}: {terms} does not divide {what} {size}.")
    return problems


@cache
def options_model(kind: str) -> type[BaseModel]:
    """The options that a loss declares, as a model that checks them.

    Raises:
        UnusableLoss: there is no such loss.
    """
    return model_of(kind, _options(kind))


def model_of(name: str, options: Mapping[str, Any]) -> type[BaseModel]:
    """A model of `options`, name -> (type, default), that refuses others."""
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    return create_model(name, __config__=config, **options)


def bounded_options(declared: source.Declarations) -> dict[str, Any]:
    """Type and default of each option of a loss's file, and the bounds in its constants LEAST (may
    be equal) and ABOVE (may not)."""
    least, above = (declared.constants.get(name, {}) for name in ("LEAST", "ABOVE"))
    return {
        option: (type_, Field(default, ge=least.get(option), gt=above.get(option)))
        for option, (type_, default) in declared.options.items()
    }


def _options(kind: str) -> dict[str, Any]:
    """Type and default of each option of a loss, which is not imported for that."""
    package, dot, name = kind.partition(".")
    if not dot:
        if kind not in list_losses():
            raise installed.UnusableLoss
        return bounded_options(source.declarations(f"dmlbench.losses.{kind}"))
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
