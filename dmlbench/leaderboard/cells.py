"""The page of each cell, a data set, a backbone and a loss: all that is known about its runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import nan
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from dmlbench.leaderboard.choices import Choice, short_name
from dmlbench.leaderboard.comparison import Comparison
from dmlbench.leaderboard.content import (
    HOLE,
    Cell,
    CellPage,
    Curves,
    Failure,
    Row,
    Section,
    distinct,
    duration_cell,
    first_line,
    number_cell,
    score_cell,
    speed_cell,
)
from dmlbench.leaderboard.sections.scores import metric_name, shown_metrics
from dmlbench.leaderboard.statistics.means import summarise
from dmlbench.leaderboard.statistics.panel import PanelStatistics
from dmlbench.leaderboard.statistics.ranks import rank_text
from dmlbench.leaderboard.table import Panel, Result, panels
from dmlbench.study.gallery_files import gallery_page
from dmlbench.study.result_files import StudyFiles
from dmlbench.study.result_shape import OK
from dmlbench.study.row_names import display_name
from dmlbench.utils.nested import flatten
from dmlbench.utils.reading import read_end
from dmlbench.utils.text import count_of

DIRTY = "-dirty"
"""The end of the name of a commit whose tree had changes."""
MOST_TRIALS = 10
LOG_LINES = 15
LOG_BYTES = 4000
WIDTH, HEIGHT = 400, 120
"""Of the picture of the loss, as `Curves` has it."""


def compose_cells(
    study: StudyFiles,
    table: pd.DataFrame,
    results: Sequence[Result],
    comparisons: Sequence[Comparison],
    choices: Sequence[Choice],
    statistics: Mapping[str, PanelStatistics],
) -> Iterator[CellPage]:
    """The page of each cell, in the order of the plan.

    Args:
        table: the long table of `results`.
        comparisons: of the same results with published numbers.
        choices: what was chosen for each loss that is tuned.
        statistics: title of a panel of the table -> its statistics.
    """
    cells: dict[str, list[Result]] = {}
    for result in results:
        cells.setdefault(cell_of(result), []).append(result)
    usual = _usual_settings([seeds[0] for seeds in cells.values()])
    sections: dict[str, list[Section]] = {cell: [] for cell in cells}
    ranks: dict[str, list[str]] = {cell: [] for cell in cells}
    for panel in panels(table):
        of_panel = statistics.get(panel.title)
        for loss, scores in _scores(panel, cells):
            cell = f"{panel.dataset}/{panel.backbone}/{loss}"
            sections[cell].append(scores)
            if of_panel and loss in of_panel.ranks:
                ranks[cell].append(_rank(of_panel, loss))
    published: dict[str, list[str]] = {}
    for comparison in comparisons:
        cell = f"{comparison.dataset}/{comparison.backbone}/{comparison.loss}"
        published.setdefault(cell, []).append(_published(comparison))
    chosen = {f"{c.dataset}/{c.backbone}/{c.loss}": c for c in choices}
    for cell, seeds in cells.items():
        loss = display_name(seeds[0].planned["loss"])
        trained = [seed for seed in seeds if seed.run["provenance"]]
        yield CellPage(
            study=study.folder.name,
            cell=cell,
            title=f"{loss} on {seeds[0].planned['dataset']}, {seeds[0].planned['backbone']}",
            head={
                **({"Rank": "; ".join(ranks[cell])} if ranks[cell] else {}),
                **({"Published": "; ".join(published[cell])} if cell in published else {}),
                "Code": distinct(seed.run["provenance"].get("git_commit") for seed in trained),
                "Device": distinct(seed.run["provenance"].get("device") for seed in trained),
                "Versions": _versions(trained),
            },
            sections=[
                *sections[cell],
                _runs(seeds),
                *_findings(seeds),
                _settings(seeds[0], usual),
                *([_trials(chosen[cell])] if cell in chosen else []),
            ],
            pictures=f"../../../{quote(gallery_page(cell))}"
            if seeds[0].planned["gallery"]
            else None,
            commands=commands_of(study, [seed.planned["path"] for seed in seeds], trained),
            curves=_curves(seeds),
            logs={
                f"seed {seed.planned['seed']}: {seed.files.train_log}": lines
                for seed in seeds
                if (lines := _log_end(seed))
            },
        )


def cell_of(result: Result) -> str:
    """dataset/backbone/loss."""
    return str(result.planned["path"]).rpartition("/")[0]


def commands_of(study: StudyFiles, paths: Sequence[str], results: Sequence[Result]) -> list[str]:
    """The commands that make runs again where they are not there.

    Args:
        paths: of the runs.
        results: those of them that have one.
    """
    commits = {str(result.run["provenance"].get("git_commit") or "") for result in results}
    checkout = []
    if len(commits) == 1 and (commit := commits.pop()):
        changes = "   # and the changes that it had then" if commit.endswith(DIRTY) else ""
        checkout.append(f"git checkout {commit.removesuffix(DIRTY)}{changes}")
    files = [f"  {study.run(path).metrics}" for path in paths]
    lines = [f"dmlbench run {study.snapshot} --", *files]
    return [*checkout, *(f"{line} \\" for line in lines[:-1]), lines[-1]]


def _scores(panel: Panel, cells: Mapping[str, Sequence[Result]]) -> Iterator[tuple[str, Section]]:
    """Each loss of a panel, with a row for each of its seeds and one for their mean."""
    summary = summarise(panel.rows)
    means: dict[Any, float] = summary["mean"].to_dict()
    halves: dict[Any, float] = summary["half_width"].to_dict()
    scores: dict[str, dict[int, dict[str, float]]] = {}
    columns = (panel.rows[name] for name in ("loss", "seed", "metric", "value"))
    for loss, seed, metric, value in zip(*columns, strict=True):
        scores.setdefault(str(loss), {}).setdefault(seed, {})[metric] = value
    run = cells[f"{panel.dataset}/{panel.backbone}/{next(iter(scores))}"][0]
    metrics = shown_metrics(panel, run)
    for loss, seeds in scores.items():
        mean = [score_cell(means.get((loss, m)), halves.get((loss, m), nan)) for m in metrics]
        yield (
            loss,
            Section(
                title=f"Scores: {panel.title}",
                facts="In percent. The mean has half the width of its 95 % interval.",
                columns=[*metrics.values()],
                rows=[
                    Row(str(seed), [score_cell(of_seed.get(metric)) for metric in metrics])
                    for seed, of_seed in seeds.items()
                ],
                controls=[Row("mean", mean)],
                names="seed",
            ),
        )


def _rank(statistics: PanelStatistics, loss: str) -> str:
    place = f"{rank_text(statistics.ranks[loss])} of {len(statistics.losses)}"
    return f"{place} ({statistics.panel.title})"


def _published(comparison: Comparison) -> str:
    number, metric = comparison.published, metric_name(comparison.published.metric)
    ours = "" if comparison.mean is None else f", here {comparison.mean:.2f}"
    return f"{metric} {number.value} ({number.paper}, {number.table}, {number.provenance}){ours}"


def _runs(seeds: Sequence[Result]) -> Section:
    """How each seed was trained, and how it ended."""
    rows = []
    for seed in seeds:
        origin = seed.run["provenance"]
        cells = [
            Cell(seed.metrics["status"]),
            duration_cell(_number(origin.get("train_seconds"))),
            speed_cell(_number(origin.get("images_per_second"))),
            number_cell(_number(origin.get("peak_memory_mb"))),
            Cell(str(origin.get("device") or HOLE)),
            Cell(str(origin.get("git_commit") or HOLE)[:12]),
            Cell(str(origin.get("started") or HOLE)),
            Cell(seed.metrics["train_key"]),
        ]
        rows.append(Row(str(seed.planned["seed"]), cells))
    texts = ("status", "device", "code", "started", "key")
    return Section(
        title="Runs",
        facts="",
        columns=["status", "train time", "images/s", "memory in MB", *texts[1:]],
        rows=rows,
        failures=[
            Failure(f"seed {seed.planned['seed']}", seed.metrics["status"], first_line(message))
            for seed in seeds
            if (message := (seed.metrics.get("error") or {}).get("message"))
        ],
        names="seed",
        text_columns=texts,
    )


def _number(value: float | None) -> float:
    return nan if value is None else value


def _findings(seeds: Sequence[Result]) -> Iterator[Section]:
    """What the quality control says of the seeds."""
    rows = [
        Row(
            finding["name"],
            [
                Cell(str(finding["severity"]), finding["severity"]),
                Cell(str(seed.planned["seed"]), seed.planned["seed"]),
                Cell(finding["message"]),
            ],
        )
        for seed in seeds
        for finding in seed.metrics.get("findings", [])
    ]
    if rows:
        yield Section(
            title="Quality control",
            facts="",
            columns=["severity", "seed", "what was found"],
            rows=sorted(rows, key=lambda row: -(row.cells[0].value or 0)),
            names="finding",
            text_columns=("what was found",),
        )


def _settings(seed: Result, usual: Mapping[str, str]) -> Section:
    """All settings of a run, and those of the study where they differ."""
    trained, planned = (flat_settings(of["settings"]) for of in (seed.run, seed.planned))
    columns = {
        "before tuning": {name: text for name, text in planned.items() if trained.get(name) != text}
        if seed.run.get("chosen")
        else {},
        "most cells": {
            name: usual[name]
            for name, text in planned.items()
            if name in usual and usual[name] != text
        },
    }
    shown = [name for name, values in columns.items() if values]
    names = [name for name in trained if not name.startswith("tuning.") and name != "seed"]
    names.sort(key=lambda name: not any(name in columns[column] for column in shown))
    return Section(
        title="Settings",
        facts="What differs comes first." if shown else "",
        columns=["value", *shown],
        rows=[
            Row(name, [Cell(trained[name]), *(Cell(columns[c].get(name, "")) for c in shown)])
            for name in names
        ],
        names="setting",
        text_columns=("value", *shown),
    )


def _usual_settings(runs: Sequence[Result]) -> dict[str, str]:
    """The most frequent value of each setting of the recipe over the cells of a study."""
    counts: dict[str, Counter[str]] = {}
    for run in runs:
        for name, text in flat_settings(run.planned["settings"]).items():
            if name.startswith("recipe."):
                counts.setdefault(name, Counter())[text] += 1
    return {name: count.most_common(1)[0][0] for name, count in counts.items()}


def flat_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings by their key paths, as the study file would say them.

    >>> flat_settings({"recipe": {"lr": 0.001, "augmentation": {"flip": True}}})
    {'recipe.lr': '0.001', 'recipe.augmentation.flip': 'true'}
    """
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in flatten(settings).items()
    }


def _trials(choice: Choice) -> Section:
    """The best trials of a tuned cell."""
    done = [trial for trial in choice.trials if trial["best_score"] is not None]
    done.sort(key=lambda trial: -trial["best_score"])
    names = list(dict.fromkeys(name for trial in done for name in trial["options"]))
    chosen = (choice.chosen or {}).get("trial")
    return Section(
        title="Trials of its tuning",
        facts=f"Mean {choice.metric} over the folds, in percent, on training classes that the "
        f"model did not see: the best {min(MOST_TRIALS, len(done))} of "
        f"{count_of(len(choice.trials), 'trial')}.",
        columns=["validation", "epochs", *map(short_name, names), "chosen"],
        rows=[
            Row(
                str(trial["trial"]),
                [
                    score_cell(trial["best_score"]),
                    Cell(str(trial["best_epoch"]), trial["best_epoch"]),
                    *(number_cell(trial["options"].get(name, nan)) for name in names),
                    Cell("chosen" if trial["trial"] == chosen else ""),
                ],
            )
            for trial in done[:MOST_TRIALS]
        ],
        failures=[Failure("choice", "nothing chosen", first_line(choice.error))]
        if choice.error
        else [],
        names="trial",
        text_columns=("chosen",),
    )


def _curves(seeds: Sequence[Result]) -> Curves | None:
    """The loss of each seed against the epoch; None if no seed has two epochs, or if a history
    cannot be read: the page has all else."""
    try:
        series = [
            seed.epochs["loss"].to_numpy(dtype=np.float64)
            for seed in seeds
            if seed.metrics["status"] == OK and len(seed.epochs) > 1
        ]
    except (OSError, ValueError):
        return None
    if not series or not np.isfinite(np.concatenate(series)).all():
        return None
    low, high = (float(f(np.concatenate(series))) for f in (np.min, np.max))
    most = max(map(len, series))
    span = (high - low) or 1.0
    lines = [
        " ".join(
            f"{WIDTH * epoch / (most - 1):.1f},{HEIGHT * (high - loss) / span:.1f}"
            for epoch, loss in enumerate(losses)
        )
        for losses in series
    ]
    return Curves(lines, f"{low:.4g}", f"{high:.4g}", count_of(most, "epoch"))


def _versions(results: Sequence[Result]) -> str:
    """The versions of libraries, each of those that its runs had."""
    versions: dict[str, dict[str, None]] = {}
    for result in results:
        for name, version in result.run["provenance"].get("versions", {}).items():
            versions.setdefault(name, {})[str(version)] = None
    return ", ".join(f"{name} {' / '.join(had)}" for name, had in versions.items()) or "unknown"


def _log_end(seed: Result) -> list[str]:
    """The last lines of the log of a training; none if there is no log."""
    try:
        return read_end(seed.files.train_log, LOG_BYTES).splitlines()[-LOG_LINES:]
    except OSError:
        return []
