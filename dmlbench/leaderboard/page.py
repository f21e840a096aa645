"""What the leaderboard's pages say, before it is Markdown or HTML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from dmlbench.leaderboard.comparison import Comparison
from dmlbench.leaderboard.statistics import summarise
from dmlbench.leaderboard.table import (
    VERSION,
    Panel,
    Result,
    is_control,
    is_trained,
    label,
    panels,
    recalls,
)
from dmlbench.remarks import NO_REMARKS, Remarks

HOLE = "–"
NAMES = {
    "map@r": "MAP@R",
    "r_precision": "R-Precision",
    "map": "MAP",
    "mrr": "MRR",
    "nmi": "NMI",
    "ami": "AMI",
}
ALWAYS = ("map@r", "r_precision", "nmi")
HISTORY = ["epoch", "step", "loss", "lr", "images_per_second", "seconds"]
"""Columns of every history; the others are what a loss says of itself."""
VERIFICATION = {"verification_accuracy": "Verification accuracy"}
"""In the place of NAMES where pairs are verified. The first of either sorts the table."""
NOTES = """\
Scores are percent: the mean over seeds ± half the width of its 95 % interval
(Student's t); one seed has no interval. Overlapping intervals do not tell two losses apart.
"2 of 3" seeds: the mean is of the runs that did not fail, and may flatter the loss. All test images
are of classes never seen in training. Each run is scored once, after its last epoch: no epoch,
setting or seed was chosen on the test classes. R-Precision, MAP@R, MAP and MRR leave out queries
without another image of their class; Recall@K counts them as misses. "Recall@1 alphabet", say, asks
for the super-class of that name: it is the share of queries whose nearest image has theirs, of all
that could. MAP and MRR are over the whole ranking of the gallery. NMI is of k-means with as many
clusters as classes; AMI is NMI corrected for chance. Verification accuracy is of pairs, those of a
fold judged by the threshold that is best for the other folds. Train time and images/s are means
over seeds, without the evaluation. Controls need no training: random vectors, the model before its
first step, and the labels themselves. Rows with "(embeddings)" were made elsewhere and only scored
here: no recipe holds for them.
"""
TRACKS = {
    "fair": "fair: one recipe for all losses",
    "paper": "paper: a recipe as published, to be compared with what was published for it",
}
DEPARTS = "Known to depart from the paper"
PUBLISHED = "Paper says, we got"
ON_PUBLISHED = """\
Percent. Provenance of the published number: "seen" in the authors' own table, slides, logs or
repository; "second-hand", in a table of others; "unconfirmed", from memory and seen in no source,
so that no difference is taken. Sources: published_comparison.csv. The numbers at the end of a row
lead to what is known to differ; a row without any has nothing that is known to."""
NONE_PUBLISHED = "There is no number that may be quoted of these systems on these data sets."


TEXTS = ("loss", "data set", "backbone", "metric", "provenance")
"""Columns of it that hold no numbers."""


class Cell(NamedTuple):
    """What stands in a table, and the number that it is sorted by."""

    text: str
    value: float | None = None


class Row(NamedTuple):
    loss: str
    cells: list[Cell]


class Failure(NamedTuple):
    """Runs without a score for one reason."""

    runs: str
    status: str
    message: str


@dataclass(frozen=True)
class Section:
    """One data set, backbone and protocol: losses and controls, each best first."""

    title: str
    facts: str
    columns: list[str]
    losses: list[Row]
    controls: list[Row]
    failures: list[Failure]


@dataclass(frozen=True)
class Beside:
    """The published numbers beside the study's; a row's last cell holds numbers of `reasons`."""

    columns: list[str]
    rows: list[list[str]]
    reasons: list[str]


@dataclass(frozen=True)
class Page:
    title: str
    head: dict[str, str]
    sections: list[Section]
    published: Beside | None = None
    remarks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Under a title, remarks by the key path in the study file."""


def compose(
    study: str,
    table: pd.DataFrame,
    results: Sequence[Result],
    remarks: Remarks = NO_REMARKS,
    comparisons: Sequence[Comparison] = (),
) -> Page:
    """A head, a section for each data set, backbone and protocol, and what the study remarks.

    `table`, `results` and `comparisons` are of the same runs. The page depends on them and on
    `remarks` alone, not on the day.
    """
    trained = [result.plan for result in results if is_trained(result.plan["loss"])]
    recipes = {
        result.plan["path"]: result.run["settings"]["recipe"]
        for result in results
        if is_trained(result.plan["loss"])
    }
    recipe = _common(recipes.values())
    failed = sum(result.metrics["status"] != "ok" for result in results)
    versions = [str(column) for column in table.columns if str(column).startswith(VERSION)]
    head = {
        "Track": TRACKS[remarks.track],
        "Runs": f"{len(results)}, of which {failed or 'none'} failed",
        "Recipe": _listed(recipe),
        "Versions": ", ".join(f"{v.removeprefix(VERSION)} {_distinct(table[v])}" for v in versions),
        "Code": _distinct(table["git_commit"]),
        "Device": _distinct(table["device"]),
    }
    sections = []
    for panel in panels(table):
        here = _common(
            recipes[plan["path"]]
            for plan in trained
            if (plan["dataset"], plan["backbone"]) == (panel.dataset, panel.backbone)
        )
        differs = {key: value for key, value in here.items() if key not in recipe}
        found = set(panel.rows["metric"].dropna())
        names = VERIFICATION if VERIFICATION.keys() & found else NAMES
        sorted_by = next(iter(names))
        shown = [m for m in names if m in found or m in ALWAYS]
        levels = _levels(panel, results)
        metrics = recalls(panel.rows) + [m for m in levels if m in found] + shown
        columns = [_metric_name(metric, names | levels) for metric in metrics]
        summary = summarise(panel.rows)
        control = panel.rows["loss"].map(is_control)
        sections.append(
            Section(
                title=panel.title,
                facts=_facts(panel.rows, names[sorted_by], differs),
                columns=[*columns, "seeds", "train time", "images/s"],
                losses=_scores(panel.rows[~control], metrics, summary, sorted_by),
                controls=_scores(panel.rows[control], metrics, summary, sorted_by),
                failures=_failures(panel.rows),
            )
        )
    noted = {"Not confirmed by a source": remarks.unconfirmed, DEPARTS: remarks.deviations}
    return Page(
        title=f"{study}: leaderboard",
        head=head,
        sections=sections + _learnt(results),
        published=_beside(comparisons) if remarks.track == "paper" else None,
        remarks={title: paths for title, paths in noted.items() if paths},
    )


def _beside(comparisons: Sequence[Comparison]) -> Beside:
    reasons = list(dict.fromkeys(reason for one in comparisons for reason in one.differs))
    numbers = {reason: number for number, reason in enumerate(reasons, 1)}
    columns = ["loss", "data set", "backbone", "metric", "paper says", "provenance"]
    rows = [
        [
            *(one.loss, one.dataset, one.backbone, _metric_name(one.says.metric)),
            *(str(one.says.value), one.says.provenance),
            HOLE if one.got is None else _score(one.got / 100, one.half_width / 100).text,
            HOLE if one.difference is None else f"{one.difference:+.2f}",
            ", ".join(map(str, sorted(numbers[reason] for reason in one.differs))),
        ]
        for one in comparisons
    ]
    return Beside([*columns, "we got", "difference", "not comparable: see"], rows, reasons)


def _metric_name(metric: str, names: Mapping[str, str] = NAMES) -> str:
    return names.get(metric, metric.capitalize())


def _facts(rows: pd.DataFrame, sorted_by: str, differs: Mapping[str, Any]) -> str:
    facts = [f"Sorted by mean {sorted_by}"]
    if queries := sorted(set(rows.loc[rows["metric"] == "queries", "value"])):
        facts.append(f"{' or '.join(f'{n:,.0f}' for n in queries)} queries")
    if differs:
        facts.append(f"recipe here: {_listed(differs)}")
    return "; ".join(facts) + "."


def _scores(
    rows: pd.DataFrame, metrics: Sequence[str], summary: pd.DataFrame, sorted_by: str
) -> list[Row]:
    """A row a loss, best first; a loss without any score is a row of holes."""
    means: dict[Any, float] = summary["mean"].to_dict()
    halves: dict[Any, float] = summary["half_width"].to_dict()
    losses = {str(loss): runs for loss, runs in rows.groupby("loss")}
    table = []
    for loss in sorted(losses, key=lambda loss: (-means.get((loss, sorted_by), -1), loss)):
        runs = losses[loss].drop_duplicates("seed")
        done = runs[runs["status"] == "ok"]
        seeds = f"{len(done)}" + (f" of {len(runs)}" if len(done) < len(runs) else "")
        cells = [
            *(_score(means.get((loss, m)), halves.get((loss, m))) for m in metrics),
            Cell(seeds, len(done)),
            _duration(done["train_seconds"].mean()),
            _speed(done["images_per_second"].mean()),
        ]
        table.append(Row(loss, cells))
    return table


def _levels(panel: Panel, results: Sequence[Result]) -> dict[str, str]:
    """The metrics of recall by level, as people read them."""
    settings = next(
        result.run["settings"]
        for result in results
        if (result.plan["dataset"], result.plan["backbone"]) == (panel.dataset, panel.backbone)
    )
    names = settings.get("test", settings["dataset"])["facts"]["levels"]
    return {f"recall@1 level_{number}": f"Recall@1 {name}" for number, name in enumerate(names, 1)}


def _learnt(results: Sequence[Result]) -> list[Section]:
    """What the losses say of themselves after the last epoch: a section a data set and backbone in
    which one does."""
    rows = []
    for result in results:
        if result.metrics["status"] == "ok" and is_trained(result.plan["loss"]):
            last = result.epochs.tail(1).drop(columns=HISTORY, errors="ignore")
            names = {name: result.plan[name] for name in ("dataset", "backbone", "loss")}
            rows += [names | row for row in last.to_dict("records")]
    sections = []
    found = pd.DataFrame(rows, columns=[*dict.fromkeys(name for row in rows for name in row)])
    for cell, runs in found.groupby(["dataset", "backbone"], sort=False) if rows else ():
        means = runs.drop(columns=["dataset", "backbone"]).groupby("loss", sort=False).mean()
        means = means.dropna(how="all").dropna(how="all", axis=1)
        if len(means):
            sections.append(
                Section(
                    title=f"What the losses learnt: {' · '.join(map(str, cell))}",
                    facts="Of the training, after its last epoch: mean over the seeds.",
                    columns=[str(column).replace("_", " ") for column in means],
                    losses=[Row(str(loss), [*map(_number, row)]) for loss, row in means.iterrows()],
                    controls=[],
                    failures=[],
                )
            )
    return sections


def _number(value: float) -> Cell:
    return Cell(HOLE) if pd.isna(value) else Cell(f"{value:.4g}", float(value))


def _failures(rows: pd.DataFrame) -> list[Failure]:
    """What became of the runs without a score, equal reasons together."""
    failed = rows[rows["status"] != "ok"].fillna({"error": "no message"})
    return [
        Failure(
            f"{label(str(loss))}, seed {', '.join(map(str, group['seed']))}",
            str(status),
            _first_line(str(error)),
        )
        for (loss, status, error), group in failed.groupby(["loss", "status", "error"], sort=False)
    ]


def _common(recipes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that all the recipes share."""
    first, *others = [*recipes] or [{}]
    return {k: value for k, value in first.items() if all(o[k] == value for o in others)}


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {json.dumps(value).strip(chr(34))}" for key, value in settings.items())


def _distinct(values: pd.Series) -> str:
    return " / ".join(values.dropna().astype(str).unique()) or "unknown"


def _score(mean: float | None, half_width: float | None) -> Cell:
    if mean is None or half_width is None:
        return Cell(HOLE)
    interval = f" ± {100 * half_width:.2f}" if half_width == half_width else ""
    return Cell(f"{100 * mean:.2f}{interval}", mean)


def _duration(seconds: float) -> Cell:
    if not seconds > 0:  # a control, or no run at all
        return Cell(HOLE)
    minutes, rest = divmod(round(seconds), 60)
    if seconds < 60:
        text = f"{seconds:.1f} s"
    elif minutes < 60:
        text = f"{minutes} min {rest:02} s"
    else:
        text = f"{minutes // 60} h {minutes % 60:02} min"
    return Cell(text, float(seconds))


def _speed(images_per_second: float) -> Cell:
    if pd.isna(images_per_second):
        return Cell(HOLE)
    return Cell(f"{images_per_second:,.0f}", float(images_per_second))


def _first_line(message: str, longest: int = 200) -> str:
    line = (message.splitlines() or [""])[0]
    return line if len(line) <= longest else line[:longest] + "…"
