"""Backbones as they are: the rows of the control `frozen`, of all backbones beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dmlbench.backbones.pretraining import describe_pretraining
from dmlbench.leaderboard.content import HOLE, Cell, Row, Section, Where
from dmlbench.leaderboard.sections.scores import metric_name
from dmlbench.leaderboard.table import Panel, Result, panels, recalls
from dmlbench.study.result_shape import OK
from dmlbench.study.row_names import CONTROL

FROZEN = f"{CONTROL}frozen"
FACTS = (
    "The features of each backbone without a head and without any training (control frozen), the "
    "best first by {}. They may have seen the test classes: the column says what is known of their "
    "pretraining."
)
WHAT, FEATURES, SIDE, PRETRAINING = "model", "features", "pixels", "pretraining"


def backbone_sections(table: pd.DataFrame, results: Sequence[Result]) -> list[Section]:
    """A section for each data set and protocol in which at least two backbones are shown frozen.

    Args:
        table: the long table of `results`.
    """
    frozen = {
        (planned["dataset"], planned["tested_on"], planned["backbone"]): result
        for result in results
        if (planned := result.planned)["loss"] == FROZEN and result.metrics["status"] == OK
    }
    groups: dict[tuple[str, str, str], list[tuple[Panel, Result]]] = {}
    for panel in panels(table[table["loss"] == FROZEN]):
        result = frozen.get((panel.dataset, panel.tested_on, panel.backbone))
        if result and panel.protocol:
            key = panel.dataset, panel.tested_on, panel.protocol
            groups.setdefault(key, []).append((panel, result))
    return [_section(parts) for parts in groups.values() if len(parts) > 1]


def _section(parts: Sequence[tuple[Panel, Result]]) -> Section:
    """The section of panels that differ only in their backbone."""
    first = parts[0][0]
    metrics = [first.main_metric, *recalls(first.rows)[:1]]
    scored = []
    for panel, result in parts:
        values = dict(zip(panel.rows["metric"], panel.rows["value"], strict=True))
        scored.append((values.get(first.main_metric, float("-inf")), panel, values, result))
    scored.sort(key=lambda part: -part[0])
    rows = [
        Row(
            panel.backbone,
            [*(_score(values.get(metric)) for metric in metrics), *_description(result)],
        )
        for _, panel, values, result in scored
    ]
    other = f" → {first.tested_on}" if first.tested_on != first.dataset else ""
    scores = [metric_name(metric, first.metrics) for metric in metrics]
    return Section(
        title=f"Backbones as they are: {first.dataset}{other} · {first.protocol}",
        facts=FACTS.format(scores[0]),
        columns=[*scores, FEATURES, SIDE, WHAT, PRETRAINING],
        rows=rows,
        names="backbone",
        text_columns=(WHAT, PRETRAINING),
        scores=tuple(scores),
        where=Where(dataset=first.dataset, protocol=first.protocol or ""),
    )


def _score(value: float | None) -> Cell:
    return Cell(HOLE) if value is None else Cell(f"{100 * value:.2f}", value)


def _description(result: Result) -> list[Cell]:
    """The size of the model, and what is known of its pretraining."""
    backbone: dict[str, Any] = result.run["settings"]["backbone"]
    dim = (result.metrics.get("embedding_shape") or {}).get("dim")
    side = backbone["image_size"]
    return [
        Cell(f"{dim:,}", dim) if dim else Cell(HOLE),
        Cell(str(side), side),
        Cell(backbone["type"]),
        Cell(_pretraining(backbone["pretrained"])),
    ]


def _pretraining(weights: bool | str) -> str:
    """What is known of `weights`, as the settings of a run name them."""
    if not weights:
        return "none: random weights"
    kind, _, name = str(weights).partition(":")
    if kind != "timm":
        return "a file of the user: not known"
    known = describe_pretraining(name)
    return f"{name}: {', then '.join(known) if known else 'not known'}"
