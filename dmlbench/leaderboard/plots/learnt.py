"""What a loss has learnt about the training classes: its artefact, for the plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dmlbench.leaderboard.table import Result
from dmlbench.utils.files import read_json_if_whole
from dmlbench.utils.text import literal


def read_artefact(result: Result, name: str) -> Mapping[str, Any] | None:
    """The artefact of the loss; None unless it is of this training and has learnt `name`."""
    artefact = read_json_if_whole(result.files.loss_artefact)
    if not artefact or artefact["train_key"] != result.planned["train_key"]:
        return None
    return artefact if artefact["learnt"].get(name) else None


def named_levels(result: Result, artefact: Mapping[str, Any]) -> dict[str, list[str]]:
    """Name of each level of super-classes, the nearest first -> the super-class of each class."""
    names = map(literal, result.run["settings"]["dataset"]["facts"]["levels"])
    levels = artefact["super_classes"].values()
    return {name: [*map(literal, of)] for name, of in zip(names, levels, strict=True)}


def cell_title(result: Result) -> str:
    """The data set, backbone and loss, for example "letters · tiny · htl"."""
    return " · ".join(result.planned[name] for name in ("dataset", "backbone", "loss"))
