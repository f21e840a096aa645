"""The content of the leaderboard's page, before it becomes Markdown or HTML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from dmlbench.leaderboard.comparison import Comparison
from dmlbench.leaderboard.statistics import summarise
from dmlbench.leaderboard.table import VERSION, Panel, Result, panels, recalls
from dmlbench.study.remarks import NO_REMARKS, Remarks
from dmlbench.study.row_names import display_name, is_control, is_trained

HOLE = "–"
RETRIEVAL = {
    "map@r": "MAP@R",
    "r_precision": "R-Precision",
    "map": "MAP",
    "mrr": "MRR",
    "nmi": "NMI",
    "ami": "AMI",
}
"""Names of the metrics of retrieval and clustering. The first one sorts the table."""
VERIFICATION = {"verification_accuracy": "Verification accuracy"}
"""Names of the metrics where pairs are verified. The first one sorts the table."""
ALWAYS_SHOWN = ("map@r", "r_precision", "nmi")
"""Columns that a table of retrieval has even if nothing was scored."""
HISTORY = ["epoch", "step", "loss", "lr", "images_per_second", "seconds"]
"""Columns that every history has. The others are what a loss reports about itself."""
NOTES = """\
Scores are in percent: the mean over seeds ± half the width of its 95 % interval
(Student's t). One seed has no interval. The interval of a loss says how well its own mean is known
if it were trained with other seeds. It does not say which losses differ: two losses whose intervals
overlap may still differ significantly, which only a test of the two can show, and among many pairs
some differ by chance. Other classes or other data may give another order. "2 of 3" seeds means that
the other runs failed; such a mean may flatter the loss. No test image belongs to a class seen in
training. Each run is scored once, after its last epoch: no epoch, setting or seed was chosen on the
test classes. R-Precision, MAP@R, MAP and MRR leave out
queries without another image of their class; Recall@K counts them as misses. "Recall@1 alphabet"
scores the super-classes of that level: it is the share of queries whose nearest image has the same
super-class, among the queries for which this is possible. MAP and MRR use the whole ranking of the
gallery. NMI is computed by k-means with as many clusters as there are classes; AMI is NMI corrected
for chance. Verification accuracy is the share of pairs judged correctly; each fold uses the
threshold that is best for the other folds. Train time and images/s are means over seeds, without
the evaluation. Controls need no training: random vectors, the model before its first step, and the
labels themselves. The embeddings in rows with "(embeddings)" were computed outside this study and
only scored here: no recipe applies to them.
"""
TRACKS = {
    "fair": "fair: one recipe for all losses",
    "paper": "paper: a recipe as published, to be compared with the published numbers",
}
TUNING = {
    "fair": "none: each loss has its defaults or the options of the study file. This is no ranking "
    "of losses: for that, each loss needs the same effort of tuning on held-out training classes",
    "paper": "none here: the settings are those of the study file, as published or as remarked",
}
DEVIATIONS_TITLE = "Known to depart from the paper"
UNCONFIRMED_TITLE = "Not confirmed by a source"
PUBLISHED_TITLE = "Paper says, we got"
PUBLISHED_NOTES = """\
Numbers are in percent. The provenance of a published number is "seen" if it is in the authors'
own table, slides, logs or repository; "second-hand" if it is in a table of others; and
"unconfirmed" if it is from memory and was seen in no source: then no difference is shown. Sources:
published_comparison.csv. The numbers at the end of a row lead to known differences from the paper;
a row without such numbers has no known differences."""
NO_PUBLISHED_NUMBERS = "published.csv has no number of these systems on these data sets."
TEXT_COLUMNS = ("loss", "data set", "backbone", "metric", "provenance")
"""Columns of the table of published numbers that hold text."""


class Cell(NamedTuple):
    """A cell of a table: its text, and the number that sorts it."""

    text: str
    value: float | None = None


class Row(NamedTuple):
    loss: str
    cells: list[Cell]


class Failure(NamedTuple):
    """Runs that failed for the same reason."""

    runs: str
    status: str
    message: str


@dataclass(frozen=True)
class Section:
    """One data set, backbone and protocol: losses and controls, each with the best first."""

    title: str
    facts: str
    columns: list[str]
    losses: list[Row]
    controls: list[Row]
    failures: list[Failure]


@dataclass(frozen=True)
class PublishedTable:
    """The published numbers next to those of the study."""

    columns: list[str]
    rows: list[list[str]]
    """The last cell of a row lists numbers of `reasons`, which count from 1."""
    reasons: list[str]


@dataclass(frozen=True)
class Page:
    title: str
    head: dict[str, str]
    sections: list[Section]
    published: PublishedTable | None = None
    remarks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Title -> key path in the study file -> remark."""
    failed_plots: Mapping[str, str] = field(default_factory=dict)
    """Plots that could not be drawn: name -> reason."""


def compose(
    study: str,
    table: pd.DataFrame,
    results: Sequence[Result],
    remarks: Remarks = NO_REMARKS,
    comparisons: Sequence[Comparison] = (),
) -> Page:
    """The page: a head, a section for each data set, backbone and protocol, and the remarks.

    Equal arguments give equal pages: no date is on it.

    Args:
        study: the name of the study.
        table: the long table of `results`.
        comparisons: of the same results with published numbers.
    """
    recipes = {
        result.planned["path"]: result.run["settings"]["recipe"]
        for result in results
        if is_trained(result.planned["loss"])
    }
    recipe = _shared_settings(recipes.values())
    failed = sum(result.metrics["status"] != "ok" for result in results)
    versions = [str(column) for column in table.columns if str(column).startswith(VERSION)]
    head = {
        "Track": TRACKS[remarks.track],
        "Tuning": TUNING[remarks.track],
        "Runs": f"{len(results)}, of which {failed or 'none'} failed",
        "Recipe": _format_settings(recipe),
        "Versions": ", ".join(f"{v.removeprefix(VERSION)} {_distinct(table[v])}" for v in versions),
        "Code": _distinct(table["git_commit"]),
        "Device": _distinct(table["device"]),
    }
    if sharing := _describe_sharing(results):
        head["GPUs shared"] = sharing
    titled = {UNCONFIRMED_TITLE: remarks.unconfirmed, DEVIATIONS_TITLE: remarks.deviations}
    return Page(
        title=f"{study}: leaderboard",
        head=head,
        sections=[
            *(_score_section(panel, results, recipes, recipe) for panel in panels(table)),
            *_learnt_sections(results),
        ],
        published=_published_table(comparisons) if remarks.track == "paper" else None,
        remarks={title: paths for title, paths in titled.items() if paths},
    )


def _describe_sharing(results: Sequence[Result]) -> str:
    """How runs shared their GPUs; empty if each had one to itself. It decides their times."""
    origins = [result.run["provenance"] for result in results]
    shared = {
        (origin["runs_per_gpu"], "with" if origin.get("mps") else "without")
        for origin in origins
        if origin.get("runs_per_gpu", 1) > 1
    }
    texts = [f"up to {runs} runs on a GPU, {word} MPS" for runs, word in sorted(shared)]
    return f"{' / '.join(texts)}; so train times are not those of a whole GPU" if texts else ""


def _score_section(
    panel: Panel,
    results: Sequence[Result],
    recipes: Mapping[str, Mapping[str, Any]],
    recipe: Mapping[str, Any],
) -> Section:
    """The section of `panel`. `recipes` are by path; `recipe` is what they all share."""
    runs = [result for result in results if _belongs_to(result, panel)]
    paths = [run.planned["path"] for run in runs]
    shared = _shared_settings(recipes[path] for path in paths if path in recipes)
    only_here = {key: value for key, value in shared.items() if key not in recipe}
    scored = set(panel.rows["metric"].dropna())
    names = VERIFICATION if VERIFICATION.keys() & scored else RETRIEVAL
    sorted_by = next(iter(names))
    levels = _level_names(runs[0])
    metrics = [
        *recalls(panel.rows),
        *(metric for metric in levels if metric in scored),
        *(metric for metric in names if metric in scored or metric in ALWAYS_SHOWN),
    ]
    columns = [_metric_name(metric, names | levels) for metric in metrics]
    summary = summarise(panel.rows)
    control = panel.rows["loss"].map(is_control)
    return Section(
        title=panel.title,
        facts=_facts(panel.rows, names[sorted_by], only_here),
        columns=[*columns, "seeds", "train time", "images/s"],
        losses=_score_rows(panel.rows[~control], metrics, summary, sorted_by),
        controls=_score_rows(panel.rows[control], metrics, summary, sorted_by),
        failures=_failures(panel.rows),
    )


def _belongs_to(result: Result, panel: Panel) -> bool:
    names = (result.planned["dataset"], result.planned["backbone"])
    return names == (panel.dataset, panel.backbone)


def _published_table(comparisons: Sequence[Comparison]) -> PublishedTable:
    reasons = list(dict.fromkeys(reason for c in comparisons for reason in c.reasons))
    numbers = {reason: number for number, reason in enumerate(reasons, 1)}
    columns = ["loss", "data set", "backbone", "metric", "paper says", "provenance"]
    columns += ["we got", "difference", "not comparable: see"]
    rows = [
        [
            c.loss,
            c.dataset,
            c.backbone,
            _metric_name(c.published.metric),
            str(c.published.value),
            c.published.provenance,
            HOLE if c.mean is None else _score_cell(c.mean / 100, c.half_width / 100).text,
            HOLE if c.difference is None else f"{c.difference:+.2f}",
            ", ".join(map(str, sorted(numbers[reason] for reason in c.reasons))),
        ]
        for c in comparisons
    ]
    return PublishedTable(columns, rows, reasons)


def _metric_name(metric: str, names: Mapping[str, str] = RETRIEVAL) -> str:
    return names.get(metric, metric.capitalize())


def _facts(rows: pd.DataFrame, sorted_by: str, recipe: Mapping[str, Any]) -> str:
    facts = [f"Sorted by mean {sorted_by}"]
    if queries := sorted(set(rows.loc[rows["metric"] == "queries", "value"])):
        facts.append(f"{' or '.join(f'{n:,.0f}' for n in queries)} queries")
    if recipe:
        facts.append(f"recipe here: {_format_settings(recipe)}")
    return "; ".join(facts) + "."


def _score_rows(
    rows: pd.DataFrame, metrics: Sequence[str], summary: pd.DataFrame, sorted_by: str
) -> list[Row]:
    """A row for each loss, the best first. A loss without any score is a row of holes."""
    means: dict[Any, float] = summary["mean"].to_dict()
    halves: dict[Any, float] = summary["half_width"].to_dict()
    losses = {str(loss): runs for loss, runs in rows.groupby("loss")}
    table = []
    for loss in sorted(losses, key=lambda loss: (-means.get((loss, sorted_by), -1), loss)):
        runs = losses[loss].drop_duplicates("seed")
        done = runs[runs["status"] == "ok"]
        seeds = f"{len(done)}" + (f" of {len(runs)}" if len(done) < len(runs) else "")
        cells = [
            *(_score_cell(means.get((loss, m)), halves.get((loss, m))) for m in metrics),
            Cell(seeds, len(done)),
            _duration_cell(done["train_seconds"].mean()),
            _speed_cell(done["images_per_second"].mean()),
        ]
        table.append(Row(loss, cells))
    return table


def _level_names(result: Result) -> dict[str, str]:
    """Metric of recall by level -> its name on the page, from the data set of the test."""
    settings = result.run["settings"]
    names = settings.get("test", settings["dataset"])["facts"]["levels"]
    return {f"recall@1 level_{number}": f"Recall@1 {name}" for number, name in enumerate(names, 1)}


def _learnt_sections(results: Sequence[Result]) -> list[Section]:
    """The numbers that losses report about themselves, after the last epoch.

    There is a section for each data set and backbone in which a loss reports any.
    """
    rows = []
    for result in results:
        if result.metrics["status"] == "ok" and is_trained(result.planned["loss"]):
            learnt = [name for name in result.epochs if name not in HISTORY]
            if learnt and len(result.epochs):
                names = {name: result.planned[name] for name in ("dataset", "backbone", "loss")}
                rows.append(names | result.epochs[learnt].iloc[-1].to_dict())
    sections = []
    table = pd.DataFrame(rows, columns=[*dict.fromkeys(name for row in rows for name in row)])
    for cell, runs in table.groupby(["dataset", "backbone"], sort=False) if rows else ():
        means = runs.drop(columns=["dataset", "backbone"]).groupby("loss", sort=False).mean()
        means = means.dropna(how="all").dropna(how="all", axis=1)
        if len(means):
            losses = [Row(str(loss), [*map(_number_cell, row)]) for loss, row in means.iterrows()]
            sections.append(
                Section(
                    title=f"What the losses learnt: {' · '.join(map(str, cell))}",
                    facts="Measured in training, after the last epoch: mean over the seeds.",
                    columns=[str(column).replace("_", " ") for column in means],
                    losses=losses,
                    controls=[],
                    failures=[],
                )
            )
    return sections


def _failures(rows: pd.DataFrame) -> list[Failure]:
    """The failed runs; those with equal reasons together."""
    failed = rows[rows["status"] != "ok"].fillna({"error": "no message"})
    return [
        Failure(
            f"{display_name(str(loss))}, seed {', '.join(map(str, group['seed']))}",
            str(status),
            _first_line(str(error)),
        )
        for (loss, status, error), group in failed.groupby(["loss", "status", "error"], sort=False)
    ]


def _shared_settings(recipes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that are equal in all `recipes`."""
    first, *others = [*recipes] or [{}]
    return {k: value for k, value in first.items() if all(o[k] == value for o in others)}


def _format_settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {json.dumps(value).strip(chr(34))}" for key, value in settings.items())


def _distinct(values: pd.Series) -> str:
    return " / ".join(values.dropna().astype(str).unique()) or "unknown"


def _score_cell(mean: float | None, half_width: float | None) -> Cell:
    if mean is None or half_width is None:
        return Cell(HOLE)
    interval = "" if pd.isna(half_width) else f" ± {100 * half_width:.2f}"
    return Cell(f"{100 * mean:.2f}{interval}", mean)


def _number_cell(value: float) -> Cell:
    return Cell(HOLE) if pd.isna(value) else Cell(f"{value:.4g}", float(value))


def _duration_cell(seconds: float) -> Cell:
    if not seconds > 0:  # a control, or NaN because no run succeeded
        return Cell(HOLE)
    minutes, rest = divmod(round(seconds), 60)
    if seconds < 60:
        text = f"{seconds:.1f} s"
    elif minutes < 60:
        text = f"{minutes} min {rest:02} s"
    else:
        text = f"{minutes // 60} h {minutes % 60:02} min"
    return Cell(text, float(seconds))


def _speed_cell(images_per_second: float) -> Cell:
    if pd.isna(images_per_second):
        return Cell(HOLE)
    return Cell(f"{images_per_second:,.0f}", float(images_per_second))


def _first_line(message: str, longest: int = 200) -> str:
    line = (message.splitlines() or [""])[0]
    return line if len(line) <= longest else line[:longest] + "…"
