"""The leaderboard as a page of Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from dmlbench.leaderboard.statistics import summarise
from dmlbench.leaderboard.table import VERSION, Result, is_control, is_trained, label, panels

HOLE = "–"
NAMES = {"map@r": "MAP@R", "r_precision": "R-Precision", "nmi": "NMI"}
VERIFICATION = {"verification_accuracy": "Verification accuracy"}
"""In the place of NAMES where pairs are verified."""
NOTES = """\
---

**How to read this.** Scores are percent: the mean over seeds ± half the width of its 95 % interval
(Student's t); one seed has no interval. Overlapping intervals do not tell two losses apart.
"2 of 3" seeds: the mean is of the runs that did not fail, and may flatter the loss. All test images
are of classes never seen in training. Each run is scored once, after its last epoch: no epoch,
setting or seed was chosen on the test classes. R-Precision and MAP@R leave out queries without
another image of their class; Recall@K counts them as misses. Verification accuracy is of pairs,
those of a fold judged by the threshold that is best for the other folds. NMI is of k-means with as
many clusters as classes. Train time and images/s are means over seeds, without the evaluation.
Controls need no training: random vectors, the model before its first step, and the labels
themselves. Rows with "(embeddings)" were made elsewhere and only scored here: no recipe holds for
them.
"""


def render(study: str, table: pd.DataFrame, results: Sequence[Result]) -> str:
    """The page: a head, one table per data set, backbone and protocol, and how to read it.

    `table` and `results` are of the same runs. The text depends on them alone, not on the day.
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
        "Runs": f"{len(results)}, of which {failed or 'none'} failed",
        "Recipe": _listed(recipe),
        "Versions": ", ".join(f"{v.removeprefix(VERSION)} {_distinct(table[v])}" for v in versions),
        "Code": _distinct(table["git_commit"]),
        "Device": _distinct(table["device"]),
    }
    text = [f"# {study}: leaderboard", "\n".join(f"- {name}: {head[name]}" for name in head)]
    for panel in panels(table):
        here = _common(
            recipes[plan["path"]]
            for plan in trained
            if (plan["dataset"], plan["backbone"]) == (panel.dataset, panel.backbone)
        )
        differs = {key: value for key, value in here.items() if key not in recipe}
        summary = summarise(panel.rows)
        control = panel.rows["loss"].map(is_control)
        text += [
            f"## {panel.title}",
            _facts(panel.rows, differs),
            _scores("loss", panel.rows[~control], summary),
            _scores("control", panel.rows[control], summary),
            _failures(panel.rows),
        ]
    return "\n\n".join(part for part in [*text, NOTES] if part)


def _facts(rows: pd.DataFrame, differs: Mapping[str, Any]) -> str:
    facts = [f"Sorted by mean {next(iter(_names(rows['metric']).values()))}"]
    if queries := sorted(set(rows.loc[rows["metric"] == "queries", "value"])):
        facts.append(f"{' or '.join(f'{n:,.0f}' for n in queries)} queries")
    if differs:
        facts.append(f"recipe here: {_listed(differs)}")
    return "; ".join(facts) + "."


def _names(found: Iterable[str]) -> dict[str, str]:
    """Of the metrics of a panel, those that it shows beside its recalls; the first sorts it."""
    return VERIFICATION if VERIFICATION.keys() & set(found) else NAMES


def _scores(kind: str, rows: pd.DataFrame, summary: pd.DataFrame) -> str:
    """One table: a row a loss, best first; a loss without any score is a row of holes."""
    found = summary.index.get_level_values("metric").unique()
    recalls = sorted((m for m in found if m.startswith("recall@")), key=lambda m: int(m[7:]))
    names = _names(found)
    metrics, sorted_by = [*recalls, *names], next(iter(names))
    means: dict[Any, float] = summary["mean"].to_dict()
    halves: dict[Any, float] = summary["half_width"].to_dict()
    header = [kind, *(names.get(metric, metric.capitalize()) for metric in metrics)]
    header += ["seeds", "train time", "images/s"]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    losses = {str(loss): runs for loss, runs in rows.groupby("loss")}
    for loss in sorted(losses, key=lambda loss: (-means.get((loss, sorted_by), -1), loss)):
        runs = losses[loss].drop_duplicates("seed")
        done = runs[runs["status"] == "ok"]
        lines.append(
            [
                label(loss),
                *(_score(means.get((loss, m)), halves.get((loss, m))) for m in metrics),
                f"{len(done)}" + (f" of {len(runs)}" if len(done) < len(runs) else ""),
                _duration(done["train_seconds"].mean()),
                _speed(done["images_per_second"].mean()),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if losses else ""


def _failures(rows: pd.DataFrame) -> str:
    """What became of the runs without a score, equal reasons on one line."""
    failed = rows[rows["status"] != "ok"].fillna({"error": "no message"})
    lines = [
        f"- {loss}, seed {', '.join(map(str, group['seed']))}: **{status}**: {_inline(str(error))}"
        for (loss, status, error), group in failed.groupby(["loss", "status", "error"], sort=False)
    ]
    return "\n".join(["Failed:", "", *lines]) if lines else ""


def _common(recipes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that all the recipes share."""
    first, *others = [*recipes] or [{}]
    return {k: value for k, value in first.items() if all(o[k] == value for o in others)}


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {json.dumps(value).strip(chr(34))}" for key, value in settings.items())


def _distinct(values: pd.Series) -> str:
    return " / ".join(values.dropna().astype(str).unique()) or "unknown"


def _score(mean: float | None, half_width: float | None) -> str:
    if mean is None or half_width is None:
        return HOLE
    return f"{100 * mean:.2f}" + (f" ± {100 * half_width:.2f}" if half_width == half_width else "")


def _duration(seconds: float) -> str:
    if not seconds > 0:  # a control, or no run at all
        return HOLE
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
    )


def _speed(images_per_second: float) -> str:
    return HOLE if pd.isna(images_per_second) else f"{images_per_second:,.0f}"


def _inline(message: str, longest: int = 200) -> str:
    """The first line of `message`, as text that Markdown leaves alone."""
    line = (message.splitlines() or [""])[0].replace("`", "'")
    return f"`{line if len(line) <= longest else line[:longest] + '…'}`"
