"""Results of a study -> table, page and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def build(study_name: str, runs: Sequence[Mapping[str, Any]], results: Path, out: Path) -> None:
    """Write leaderboard.csv, leaderboard.md and plots/{recall,training}.{png,svg} into `out`.

    `runs` are the planned runs, in the order of the plan: {"dataset", "backbone", "loss", "seed",
    "path", "train_key", "eval_key"} each, with the run's folder `path` under `results`. Equal
    results give equal files. Raises MissingResult if a result is missing or has another key.
    """
    from dmlbench.files import replacing
    from dmlbench.leaderboard import markdown, plots, table

    found = table.read(runs, results)
    rows = table.tabulate(found)
    with replacing(out / "leaderboard.csv") as path:
        table.write_csv(rows, path)
    with replacing(out / "leaderboard.md") as path:
        path.write_text(markdown.render(study_name, rows, found), "utf-8")
    for name, figure in (("recall", plots.recall(rows)), ("training", plots.training(found))):
        for kind in ("png", "svg"):
            with replacing(out / "plots" / f"{name}.{kind}") as path:
                plots.save(figure, path)
