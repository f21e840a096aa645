"""Paper says, we got: the results of a paper-track study beside the published numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlbench.leaderboard.statistics import summarise
from dmlbench.leaderboard.table import Result, panels
from dmlbench.published import UNCONFIRMED, Published
from dmlbench.remarks import Remarks

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    *("dataset", "backbone", "loss", "system", "metric", "paper_says", "provenance"),
    *("we_got", "half_width", "seeds", "difference", "differs", "paper", "source", "note"),
]


@dataclass(frozen=True)
class Comparison:
    """One published number, and what the study has there; in percent."""

    dataset: str
    backbone: str
    loss: str
    says: Published
    got: float | None
    """Mean over seeds; None without a run that did not fail, or where this was not scored."""
    half_width: float
    """Of its 95 % interval; NaN for one seed or none."""
    seeds: int
    differs: list[str]
    """Why the two do not compare, as far as is known."""

    @property
    def difference(self) -> float | None:
        """We got - paper says; None where that number is unconfirmed, or there is none of ours."""
        if self.got is None or self.says.provenance == UNCONFIRMED:
            return None
        return self.got - self.says.value


def compare(
    table: pd.DataFrame, results: Sequence[Result], remarks: Remarks
) -> Iterator[Comparison]:
    """For each loss that is a published system, in the order of the plan, the numbers of that
    system on this data set and protocol: those for this backbone and dimension, or, where there
    are none, for the likest."""
    settings = {
        tuple(result.plan[axis] for axis in ("dataset", "backbone", "loss")): result.run["settings"]
        for result in results
    }
    for panel in panels(table):
        summary = summarise(panel.rows).to_dict("index")
        for loss in panel.rows["loss"].unique():
            set_ = settings[panel.dataset, panel.backbone, loss]
            system = remarks.systems.get(loss)
            if not system or "test" in set_:  # of what is tested elsewhere nothing is published
                continue
            for says in _likest(system, panel.protocol, set_, remarks.published):
                found = summary.get((loss, says.metric))
                yield Comparison(
                    dataset=panel.dataset,
                    backbone=panel.backbone,
                    loss=loss,
                    says=says,
                    got=100 * found["mean"] if found else None,
                    half_width=100 * found["half_width"] if found else float("nan"),
                    seeds=int(found["seeds"]) if found else 0,
                    differs=[
                        *_differences(says, set_),
                        *_lost_seeds(panel.rows[panel.rows["loss"] == loss]),
                        *_remarked(panel.dataset, panel.backbone, loss, remarks),
                    ],
                )


def write_csv(comparisons: Sequence[Comparison], path: Path) -> None:
    """A row a published number; the reasons in `differs` are parted by "; "."""
    import pandas as pd

    rows = [
        (
            *(one.dataset, one.backbone, one.loss, one.says.system, one.says.metric),
            *(one.says.value, one.says.provenance, one.got, one.half_width, one.seeds),
            *(one.difference, "; ".join(one.differs)),
            *(one.says.paper, one.says.source, one.says.note),
        )
        for one in comparisons
    ]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(path, index=False, lineterminator="\n")


def _likest(
    system: str, protocol: str | None, settings: Mapping[str, Any], published: Sequence[Published]
) -> list[Published]:
    model = settings["backbone"]
    rows = [
        row
        for row in published
        if (row.system, row.dataset) == (system, settings["dataset"]["type"])
        and protocol in (row.protocol, None)
    ]
    likeness = [(row.backbone == _architecture(model), row.dim == model["dim"]) for row in rows]
    return [row for row, like in zip(rows, likeness, strict=True) if like == max(likeness)]


def _architecture(model: Mapping[str, Any]) -> str:
    """The backbone's type, without the tag of timm's weights."""
    return str(model["type"]).partition(".")[0]


def _differences(says: Published, settings: Mapping[str, Any]) -> Iterator[str]:
    model, data, recipe = (settings[name] for name in ("backbone", "dataset", "recipe"))
    here = {"backbone": _architecture(model), "dim": model["dim"]}
    for name, value in here.items():
        theirs = getattr(says, name)
        if not theirs:
            yield f"{name}: {value} here, not recorded of the paper"
        elif theirs != value:
            yield f"{name}: {value} here, {theirs} in the paper"
    if says.image_size and says.image_size != model["image_size"]:
        yield f"image_size: {model['image_size']} here, {says.image_size} in the paper"
    if says.epochs and recipe["epochs"] < int(says.epochs):
        yield f"epochs: {recipe['epochs']} here, {says.epochs:g} in the paper"
    if data["class_fraction"] != 1:
        yield f"{data['class_fraction']:.0%} of the data set's classes"
    if not model["pretrained"]:
        yield "random initial weights here, ImageNet's in the paper"


def _lost_seeds(rows: pd.DataFrame) -> Iterator[str]:
    planned, done = (found["seed"].nunique() for found in (rows, rows[rows["status"] == "ok"]))
    if 0 < done < planned:
        yield f"seeds: the mean of {done} of {planned}, the others failed"


def _remarked(dataset: str, backbone: str, loss: str, remarks: Remarks) -> Iterator[str]:
    """The study's own remarks, as far as they concern these runs and not which are planned."""
    here = {"datasets": dataset, "backbones": backbone, "losses": loss}
    entries = [f"{section}.{name}" for section, name in here.items()]
    otherwise = [f"recipe.{key}" for entry in entries for key in remarks.overrides.get(entry, ())]
    kinds = {"not confirmed": remarks.unconfirmed, "departs from the paper": remarks.deviations}
    for kind, paths in kinds.items():
        concerned = [
            path
            for path in paths
            for section in [path.partition(".")[0]]
            if section != "plan"
            and (path == section or section not in here or _within(path, entries))
            and not _within(path, otherwise)
        ]
        if concerned:
            yield f"{kind}: {', '.join(concerned)}"


def _within(path: str, places: Sequence[str]) -> bool:
    """Whether a key path is one of `places`, or of what stands below one."""
    return any(f"{path}.".startswith(f"{place}.") for place in places)
