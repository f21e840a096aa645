"""Write the table, the pages and the plots of a study."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dmlbench.study.remarks import NO_REMARKS, Remarks
from dmlbench.study.result_files import StudyFiles

COMPARISON = "published_comparison.csv"


def build(
    study_name: str,
    runs: Sequence[Mapping[str, Any]],
    files: StudyFiles,
    out: Path,
    remarks: Remarks = NO_REMARKS,
) -> None:
    """Write the leaderboard of a study into the folder `out`. Equal results give equal files.

    The files are

    - leaderboard.{csv,md,html};
    - plots/{recall,recall_curves,time,training}.{png,svg};
    - plots/trees/<dataset>/<backbone>/<loss>.{png,svg} of each loss that learns a tree; trees of
      other losses are removed;
    - published_comparison.csv in the paper track.

    Args:
        runs: the planned runs in the order of the plan, as `Study.rows` gives them; see
            `table.read_results`. "tree" is the name of the picture of the run's cell, or None.

    Raises:
        MissingResult: a result is missing or has another key. Nothing is written then.
    """
    from dmlbench.leaderboard import comparison, html, markdown
    from dmlbench.leaderboard.page import compose
    from dmlbench.leaderboard.plots.figure import save
    from dmlbench.leaderboard.plots.recall import recall
    from dmlbench.leaderboard.plots.recall_curves import recall_curves
    from dmlbench.leaderboard.plots.time import time
    from dmlbench.leaderboard.plots.training import training
    from dmlbench.leaderboard.plots.tree import tree
    from dmlbench.leaderboard.table import Result, read_results, tabulate, write_csv
    from dmlbench.utils.files import replacing

    results = read_results(runs, files)
    table = tabulate(results)
    comparisons = [*comparison.compare(table, results, remarks)]
    page = compose(study_name, table, results, remarks, comparisons)
    trees: dict[str, list[Result]] = {}
    for result in results:
        if result.planned["tree"]:
            trees.setdefault(result.planned["tree"], []).append(result)
    figures = {
        "recall": recall(table),
        "recall_curves": recall_curves(table),
        "time": time(table),
        "training": training(results),
        **{name: tree(seeds) for name, seeds in trees.items()},
    }
    shutil.rmtree(out / "plots/trees", ignore_errors=True)
    for name, figure in figures.items():
        for suffix in ("png", "svg"):
            with replacing(out / "plots" / f"{name}.{suffix}") as path:
                save(figure, path)
    with replacing(out / "leaderboard.csv") as path:
        write_csv(table, path)
    if remarks.track == "paper":
        with replacing(out / COMPARISON) as path:
            comparison.write_csv(comparisons, path)
    else:  # the study may have been in the paper track before
        (out / COMPARISON).unlink(missing_ok=True)
    with replacing(out / "leaderboard.md") as path:
        path.write_text(markdown.render(page), "utf-8")
    with replacing(out / "leaderboard.html") as path:
        plots = {name: out / "plots" / f"{name}.svg" for name in figures}
        path.write_text(html.render(page, plots), "utf-8")
