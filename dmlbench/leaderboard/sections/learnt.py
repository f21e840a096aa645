"""What losses report about themselves."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dmlbench.leaderboard.content import Row, Section, Where, number_cell
from dmlbench.leaderboard.table import Result
from dmlbench.study.row_names import is_trained

HISTORY = ["epoch", "step", "loss", "lr", "images_per_second", "seconds"]
"""Columns that every history has. The others are what a loss reports about itself."""


def learnt_sections(results: Sequence[Result]) -> list[Section]:
    """The numbers that losses report about themselves, after the last epoch.

    There is a section for each data set and backbone in which a loss reports any.
    """
    last = []
    for result in results:
        if result.metrics["status"] == "ok" and is_trained(result.planned["loss"]):
            if "model" in result.epochs:  # several models, and no last epoch of the run
                continue
            learnt = [name for name in result.epochs if name not in HISTORY]
            if learnt and len(result.epochs):
                names = {name: result.planned[name] for name in ("dataset", "backbone", "loss")}
                last.append(names | result.epochs[learnt].iloc[-1].to_dict())
    sections = []
    table = pd.DataFrame(last, columns=[*dict.fromkeys(name for row in last for name in row)])
    for cell, runs in table.groupby(["dataset", "backbone"], sort=False) if last else ():
        means = runs.drop(columns=["dataset", "backbone"]).groupby("loss", sort=False).mean()
        means = means.dropna(how="all").dropna(how="all", axis=1)
        if len(means):
            rows = [Row(str(loss), [*map(number_cell, row)]) for loss, row in means.iterrows()]
            sections.append(
                Section(
                    title=f"What the losses learnt: {' · '.join(map(str, cell))}",
                    facts="Measured in training, after the last epoch: mean over the seeds.",
                    columns=[str(column).replace("_", " ") for column in means],
                    rows=rows,
                    where=Where(*map(str, cell)),
                )
            )
    return sections
