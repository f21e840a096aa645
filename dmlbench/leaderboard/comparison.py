"""The results of a paper-track study compared with the published numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlbench.leaderboard.statistics.means import summarise
from dmlbench.leaderboard.table import Result, panels
from dmlbench.study.published import UNCONFIRMED, Published
from dmlbench.study.reality_check import REALITY_CHECK, is_of_reality_check, scored_dim
from dmlbench.study.remarks import Remarks

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Comparison:
    """One published number and the study's own result, both in percent."""

    dataset: str
    backbone: str
    loss: str
    published: Published
    mean: float | None
    """Mean over seeds; None if all runs failed, or if they were not scored by this metric."""
    half_width: float
    """Half the width of the 95 % interval of `mean`; NaN with fewer than two seeds."""
    seeds: int
    reasons: list[str]
    """Why the two numbers may not be comparable, as far as is known."""

    @property
    def difference(self) -> float | None:
        """`mean` minus the published number; None if that is unconfirmed or `mean` is None."""
        if self.mean is None or self.published.provenance == UNCONFIRMED:
            return None
        return self.mean - self.published.value


def compare(
    table: pd.DataFrame, results: Sequence[Result], remarks: Remarks
) -> Iterator[Comparison]:
    """Compare each loss that is a published system with the numbers of that system.

    They come in the order of the plan. The numbers are those on the same data set and protocol
    for the same backbone and dimension, or else for the most similar ones. Embeddings of several
    models, separated or concatenated, have protocols of their own: no number of theirs is compared
    with one of a single model.

    Args:
        table: the long table of `results`.
    """
    settings = {
        tuple(result.planned[name] for name in ("dataset", "backbone", "loss")): result.run[
            "settings"
        ]
        for result in results
    }
    for panel in panels(table):
        summary = summarise(panel.rows).to_dict("index")
        for loss in panel.rows["loss"].unique():
            run_settings = settings[panel.dataset, panel.backbone, loss]
            system = remarks.systems.get(loss)
            # no paper has numbers for a test on another data set, or for a split of a holdout
            if not system or "test" in run_settings or "holdout" in run_settings["dataset"]:
                continue
            rows = panel.rows[panel.rows["loss"] == loss]
            candidates = [row for row in remarks.published if row.system == system]
            for published in _most_similar(candidates, panel.protocol, run_settings):
                score = summary.get((loss, published.metric))
                yield Comparison(
                    dataset=panel.dataset,
                    backbone=panel.backbone,
                    loss=loss,
                    published=published,
                    mean=100 * score["mean"] if score else None,
                    half_width=100 * score["half_width"] if score else float("nan"),
                    seeds=int(score["seeds"]) if score else 0,
                    reasons=[
                        *_differing_settings(published, run_settings),
                        *_failed_seeds(rows),
                        *_applicable_remarks(panel.dataset, panel.backbone, loss, remarks),
                    ],
                )


def write_csv(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write one row for each published number. "; " separates the reasons in `differs`."""
    import pandas as pd

    columns = {
        "dataset": [c.dataset for c in comparisons],
        "backbone": [c.backbone for c in comparisons],
        "loss": [c.loss for c in comparisons],
        "system": [c.published.system for c in comparisons],
        "protocol": [c.published.protocol for c in comparisons],
        "metric": [c.published.metric for c in comparisons],
        "paper_says": [c.published.value for c in comparisons],
        "provenance": [c.published.provenance for c in comparisons],
        "we_got": [c.mean for c in comparisons],
        "half_width": [c.half_width for c in comparisons],
        "seeds": [c.seeds for c in comparisons],
        "difference": [c.difference for c in comparisons],
        "differs": ["; ".join(c.reasons) for c in comparisons],
        "paper": [c.published.paper for c in comparisons],
        "source": [c.published.source for c in comparisons],
        "note": [c.published.note for c in comparisons],
    }
    pd.DataFrame(columns).to_csv(path, index=False, lineterminator="\n")


def _most_similar(
    candidates: Sequence[Published], protocol: str | None, settings: Mapping[str, Any]
) -> list[Published]:
    """The rows of the data set and protocol whose backbone, and then dimension, fit best.

    Args:
        protocol: None if all runs failed: then any protocol by which the study scores.
    """
    model = settings["backbone"]
    several_models = settings.get("protocol") == REALITY_CHECK
    rows = [
        row
        for row in candidates
        if row.dataset == settings["dataset"]["type"]
        and protocol in (row.protocol, None)
        and is_of_reality_check(row.protocol) == several_models
    ]
    fits = [
        (row.backbone == _architecture(model), row.dim == scored_dim(row.protocol, model["dim"]))
        for row in rows
    ]
    return [row for row, fit in zip(rows, fits, strict=True) if fit == max(fits)]


def _architecture(model: Mapping[str, Any]) -> str:
    """The type of a backbone without the tag of timm's weights."""
    return str(model["type"]).partition(".")[0]


def _differing_settings(published: Published, settings: Mapping[str, Any]) -> Iterator[str]:
    model, data, recipe = (settings[name] for name in ("backbone", "dataset", "recipe"))
    dim = scored_dim(published.protocol, model["dim"])
    for name, value in {"backbone": _architecture(model), "dim": dim}.items():
        in_paper = getattr(published, name)
        if not in_paper:
            yield f"{name}: {value} here, not recorded for the paper"
        elif in_paper != value:
            yield f"{name}: {value} here, {in_paper} in the paper"
    if published.image_size and published.image_size != model["image_size"]:
        yield f"image_size: {model['image_size']} here, {published.image_size} in the paper"
    if published.epochs and recipe["epochs"] < int(published.epochs):
        yield f"epochs: {recipe['epochs']} here, {published.epochs:g} in the paper"
    if data["class_fraction"] != 1:
        yield f"{data['class_fraction']:.0%} of the data set's classes"
    if not model["pretrained"]:
        yield "random initial weights here, ImageNet weights in the paper"
    if published.conflict:
        yield f"the sources disagree: {published.conflict}"


def _failed_seeds(rows: pd.DataFrame) -> Iterator[str]:
    planned = rows["seed"].nunique()
    succeeded = rows[rows["status"] == "ok"]["seed"].nunique()
    if 0 < succeeded < planned:
        yield f"seeds: the mean of {succeeded} of {planned}, the others failed"


def _applicable_remarks(dataset: str, backbone: str, loss: str, remarks: Remarks) -> Iterator[str]:
    """The study's remarks that concern these runs. Remarks on which runs are planned do not."""
    names = {"datasets": dataset, "backbones": backbone, "losses": loss}
    entries = [f"{section}.{name}" for section, name in names.items()]
    overridden = [f"recipe.{key}" for entry in entries for key in remarks.overrides.get(entry, ())]
    kinds = {"not confirmed": remarks.unconfirmed, "departs from the paper": remarks.deviations}
    for kind, remarked in kinds.items():
        paths = []
        for path in remarked:
            section = path.partition(".")[0]
            concerned = path == section or section not in names or _is_within(path, entries)
            if section != "plan" and concerned and not _is_within(path, overridden):
                paths.append(path)
        if paths:
            yield f"{kind}: {', '.join(paths)}"


def _is_within(path: str, parents: Sequence[str]) -> bool:
    """Whether a key path is one of `parents` or lies below one."""
    return any(f"{path}.".startswith(f"{parent}.") for parent in parents)
