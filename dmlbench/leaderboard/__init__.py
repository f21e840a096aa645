"""Results of a study -> table, pages and plots."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dmlbench.remarks import NO_REMARKS, Remarks

COMPARISON = "published_comparison.csv"


def build(
    study_name: str,
    runs: Sequence[Mapping[str, Any]],
    results: Path,
    out: Path,
    remarks: Remarks = NO_REMARKS,
) -> None:
    """Write leaderboard.{csv,md,html} and plots/{recall,recall_curves,time,training}.{png,svg} into
    `out`; of the paper track, published_comparison.csv too; and, of losses that learn a tree,
    plots/trees/<dataset>/<backbone>/<loss>.{png,svg}, where no others remain.

    `runs` are the planned runs, in the order of the plan: {"dataset", "tested_on", "backbone",
    "loss", "seed", "path", "tree", "train_key", "eval_key"} each, with the run's folder `path`
    under `results`, and the name of its cell's `tree`, or None. Equal results give equal files.
    Raises MissingResult if a result is missing or has another key.
    """
    from dmlbench.files import replacing
    from dmlbench.leaderboard import comparison, html, markdown, table
    from dmlbench.leaderboard.page import compose
    from dmlbench.leaderboard.plots.figure import save
    from dmlbench.leaderboard.plots.recall import recall
    from dmlbench.leaderboard.plots.recall_curves import recall_curves
    from dmlbench.leaderboard.plots.time import time
    from dmlbench.leaderboard.plots.training import training
    from dmlbench.leaderboard.plots.tree import tree

    found = table.read(runs, results)
    rows = table.tabulate(found)
    compared = [*comparison.compare(rows, found, remarks)]
    page = compose(study_name, rows, found, remarks, compared)
    cells: dict[str, list[table.Result]] = {}
    for result in found:
        if result.plan["tree"]:
            cells.setdefault(result.plan["tree"], []).append(result)
    figures = {
        "recall": recall(rows),
        "recall_curves": recall_curves(rows),
        "time": time(rows),
        "training": training(found),
        **{name: tree(seeds) for name, seeds in cells.items()},
    }
    shutil.rmtree(out / "plots/trees", ignore_errors=True)  # of losses that are no more
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            with replacing(out / "plots" / f"{name}.{kind}") as path:
                save(figure, path)
    with replacing(out / "leaderboard.csv") as path:
        table.write_csv(rows, path)
    if remarks.track == "paper":
        with replacing(out / COMPARISON) as path:
            comparison.write_csv(compared, path)
    else:  # of a study that was of the paper track
        (out / COMPARISON).unlink(missing_ok=True)
    with replacing(out / "leaderboard.md") as path:
        path.write_text(markdown.render(page), "utf-8")
    with replacing(out / "leaderboard.html") as path:
        plots = {name: out / "plots" / f"{name}.svg" for name in figures}
        path.write_text(html.render(page, plots), "utf-8")
