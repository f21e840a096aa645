"""The sections of a study file: where each key belongs."""

from __future__ import annotations

from functools import cache

from dmlbench.datasets import list_datasets
from dmlbench.losses import list_losses
from dmlbench.study.backbone_settings import Backbone
from dmlbench.study.cluster import Cluster
from dmlbench.study.model import Model
from dmlbench.study.plan import Exclude, Plan
from dmlbench.study.settings import (
    Augmentation,
    Dataset,
    Embeddings,
    Evaluation,
    Jitter,
    Recipe,
    Report,
    Settings,
)
from dmlbench.study.tuning_settings import SearchRange, Tuning
from dmlbench.utils.declarations import read_declarations

SECTIONS: dict[str, tuple[str, type[Model]]] = {
    "A study file": ("", Settings),
    "plan": ("plan", Plan),
    "plan.exclude": ("plan.exclude", Exclude),
    "recipe": ("recipe", Recipe),
    "recipe.augmentation": ("recipe.augmentation", Augmentation),
    "recipe.augmentation.jitter": ("recipe.augmentation.jitter", Jitter),
    "backbones": ("backbones.<name>", Backbone),
    "datasets": ("datasets.<name>", Dataset),
    "embeddings": ("embeddings.<name>", Embeddings),
    "evaluation": ("evaluation", Evaluation),
    "report": ("report", Report),
    "tuning": ("tuning", Tuning),
    "tuning.spaces": ("tuning.spaces.<name>.<option>", SearchRange),
    "cluster": ("cluster", Cluster),
}
"""Title of a section -> the place of its settings in a study file, and their model."""


@cache
def places_of_keys() -> dict[str, list[str]]:
    """Each key of a study file -> the places that it may stand at.

    >>> places_of_keys()["lr"]
    ['recipe']
    """
    places: dict[str, list[str]] = {}
    for place, model in SECTIONS.values():
        for key in model.model_fields:
            places.setdefault(key, []).append(place)
    for package, names in (("datasets", list_datasets()), ("losses", list_losses())):
        for name in names:
            for option in read_declarations(f"dmlbench.{package}.{name}").options:
                if f"{package}.<name>" not in places.setdefault(option, []):
                    places[option].append(f"{package}.<name>")
    return places
