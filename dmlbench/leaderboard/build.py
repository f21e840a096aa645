"""Write the table, the pages and the plots of a study."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmlbench.leaderboard.table import NO_HOLES, Hole
from dmlbench.study.gallery_files import remove_other_galleries
from dmlbench.study.remarks import NO_REMARKS, Remarks
from dmlbench.study.result_files import StudyFiles

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from dmlbench.leaderboard.choices import Choice
    from dmlbench.leaderboard.comparison import Comparison
    from dmlbench.leaderboard.content import CellPage
    from dmlbench.leaderboard.pictures import Figures
    from dmlbench.leaderboard.statistics.panel import PanelStatistics
    from dmlbench.leaderboard.table import Result
    from dmlbench.study.study import Study

COMPARISON = "published_comparison.csv"
WORKERS, MANY_RUNS = 2, 200
"""Processes that draw the plots of a study with many runs. A smaller one is drawn before they have
started."""


def build_leaderboard(study: Study, holes: Mapping[str, Hole] = NO_HOLES) -> dict[str, str]:
    """Write the leaderboard of `study`, and what it was made from.

    Args:
        holes: path of a run that has no result -> why.

    Returns:
        The plots that could not be drawn: name -> reason.

    Raises:
        MissingResult: another run has no result. Nothing is written then.
    """
    from dmlbench.leaderboard.made_of import read_results_digest, write_made_of

    files = study.files
    results = read_results_digest(study)
    rows = study.rows
    if holes:  # jobs failed, so pictures may not have been drawn
        for row in rows:
            group = row["gallery"]
            if group and not files.gallery(group).page(row["loss"]).is_file():
                row["gallery"] = None
    failed = build(study.name, rows, files, files.leaderboard, study.remarks, holes)
    remove_other_galleries(files.leaderboard, study.galleries)
    write_made_of(study, results, bool(holes), failed)
    return failed


def build(
    study_name: str,
    runs: Sequence[Mapping[str, Any]],
    files: StudyFiles,
    out: Path,
    remarks: Remarks = NO_REMARKS,
    holes: Mapping[str, Hole] = NO_HOLES,
) -> dict[str, str]:
    """Write the leaderboard of a study into the folder `out`. Equal results give equal files.

    The files are

    - leaderboard.{csv,md,tex,html};
    - cells/<dataset>/<backbone>/<loss>.html of each cell; pages that an earlier study left there
      are removed;
    - plots/{recall,recall_curves,time,training}.{png,svg,pdf}; what does not fit into one picture
      goes on in recall-2.png, ...;
    - plots/{trials,trial_settings}.{png,svg,pdf} if losses are tuned;
    - plots/ladder.{png,svg,pdf} if data sets are rungs of a ladder;
    - plots/critical_difference.{png,svg,pdf} if losses are ranked over several data sets;
    - plots/published.{png,svg,pdf} in the paper track;
    - plots/trees/<dataset>/<backbone>/<loss>.{png,svg,pdf} of each loss that learns a tree, and
      plots/groups/... of each that has learnt groups of classes; pictures that an earlier study
      left there are removed;
    - published_comparison.csv in the paper track.

    Args:
        runs: the planned runs in the order of the plan, as `Study.rows` gives them; see
            `table.read_results`. "tree" is the name of the picture of the run's cell, or None;
            "gallery" is the dataset/backbone whose pages of pictures show the run, or None.
        holes: path of a run that has no result -> why.

    Returns:
        The plots that could not be drawn: name -> reason. Their pictures say so, and the pages.

    Raises:
        MissingResult: a result is missing or has another key. Nothing is written then.
    """
    from dmlbench.leaderboard import comparison, html, latex, markdown
    from dmlbench.leaderboard.cells import compose_cells
    from dmlbench.leaderboard.choices import read_choices
    from dmlbench.leaderboard.page import compose
    from dmlbench.leaderboard.pictures import drawing
    from dmlbench.leaderboard.statistics.panel import all_statistics
    from dmlbench.leaderboard.table import read_results, tabulate, write_csv
    from dmlbench.utils.cores import usable_cores
    from dmlbench.utils.files import replacing

    results = read_results(runs, files, holes)
    table = tabulate(results)
    comparisons = [*comparison.compare(table, results, remarks)]
    choices = read_choices(results, files)
    statistics = all_statistics(table, results)
    plots = _list_plots(table, results, remarks, comparisons, choices, statistics)
    workers = min(WORKERS, usable_cores()) if len(runs) >= MANY_RUNS else 1
    with drawing(plots, out / "plots", workers) as finish:
        page = compose(study_name, table, results, remarks, comparisons, choices, statistics)
        with replacing(out / "leaderboard.csv") as path:
            write_csv(table, path)
        if remarks.track == "paper":
            with replacing(out / COMPARISON) as path:
                comparison.write_csv(comparisons, path)
        else:  # the study may have been in the paper track before
            (out / COMPARISON).unlink(missing_ok=True)
        cells = compose_cells(files, table, results, comparisons, choices, statistics)
        _write_cells(cells, out / "cells")
        pictures, failed = finish()
    page = replace(page, failed_plots=failed)
    with replacing(out / "leaderboard.tex") as path:
        path.write_text(latex.render(page), "utf-8")
    with replacing(out / "leaderboard.md") as path:
        path.write_text(markdown.render(page), "utf-8")
    with replacing(out / "leaderboard.html") as path:
        path.write_text(html.render(page, pictures), "utf-8")
    return failed


def _write_cells(pages: Iterable[CellPage], folder: Path) -> None:
    """Write the page of each cell, and remove those of an earlier call that have no successor."""
    from dmlbench.leaderboard.html import render_cell
    from dmlbench.utils.files import keep_only, replacing

    written = set()
    for page in pages:
        file = folder / f"{page.cell}.html"
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as path:
            path.write_text(render_cell(page), "utf-8")
        written.add(file)
    keep_only(written, folder)


def _list_plots(
    table: pd.DataFrame,
    results: Sequence[Result],
    remarks: Remarks,
    comparisons: Sequence[Comparison],
    choices: Sequence[Choice],
    statistics: Mapping[str, PanelStatistics],
) -> dict[str, Figures]:
    """The plots of a study: the name of each, and what makes its figures."""
    from dmlbench.leaderboard.cells import cell_of
    from dmlbench.leaderboard.plots.critical_difference import critical_difference
    from dmlbench.leaderboard.plots.groups import groups, has_groups
    from dmlbench.leaderboard.plots.ladder import ladder
    from dmlbench.leaderboard.plots.published import published
    from dmlbench.leaderboard.plots.recall import recall
    from dmlbench.leaderboard.plots.recall_curves import recall_curves
    from dmlbench.leaderboard.plots.time import time
    from dmlbench.leaderboard.plots.training import training
    from dmlbench.leaderboard.plots.tree import tree
    from dmlbench.leaderboard.plots.trials import trial_settings, trials
    from dmlbench.study.ladders import find_ladders
    from dmlbench.study.mean_ranks import has_mean_ranks, ranked_cells

    planned = [result.planned for result in results]
    rungs = find_ladders(planned)
    cells: dict[str, list[Result]] = {}
    for result in results:
        name = result.planned["tree"] or f"groups/{cell_of(result)}"
        cells.setdefault(name, []).append(result)
    plots: dict[str, Figures] = {
        "recall": partial(recall, table),
        "recall_curves": partial(recall_curves, table),
        "time": partial(time, table, results),
        "training": partial(training, results),
    }
    if choices:
        plots["trials"] = partial(trials, choices)
        plots["trial_settings"] = partial(trial_settings, choices)
    if rungs:
        plots["ladder"] = partial(ladder, table, results)
    if has_mean_ranks(ranked_cells(planned)):
        plots["critical_difference"] = partial(critical_difference, statistics)
    if remarks.track == "paper":
        plots["published"] = partial(published, comparisons)
    for name, seeds in cells.items():
        if seeds[0].planned["tree"]:
            plots[name] = partial(_draw_one, tree, seeds)
        elif has_groups(seeds):
            plots[name] = partial(_draw_one, groups, seeds)
    return plots


def _draw_one(draw: Callable[[Sequence[Result]], Figure], seeds: Sequence[Result]) -> list[Figure]:
    return [draw(seeds)]
