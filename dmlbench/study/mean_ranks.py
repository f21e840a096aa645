"""Whether a study can rank its losses over several data sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dmlbench.study.ladders import find_ladders
from dmlbench.study.row_names import is_trained

MAKES_NUMBERS = False
LEAST_LOSSES, LEAST_DATASETS = 3, 2


def has_mean_ranks(cells: Iterable[tuple[str, tuple[str, str], str]]) -> bool:
    """Whether a backbone has at least three trained losses on at least two data sets.

    Args:
        cells: the backbone, the data sets of the training and of the test, and the loss of each
            cell of the plan.

    >>> cells = [("tiny", (data, data), loss) for data in ("cub", "sop") for loss in "abc"]
    >>> has_mean_ranks(cells), has_mean_ranks(cells[:-1])
    (True, False)
    """
    datasets: dict[str, dict[str, set[tuple[str, str]]]] = {}
    for backbone, dataset, loss in cells:
        if is_trained(loss):
            datasets.setdefault(backbone, {}).setdefault(loss, set()).add(dataset)
    for of_losses in datasets.values():
        everywhere = set.union(*of_losses.values())
        losses = sum(of_loss == everywhere for of_loss in of_losses.values())
        if len(everywhere) >= LEAST_DATASETS and losses >= LEAST_LOSSES:
            return True
    return False


def ranked_cells(
    rows: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, tuple[str, str], str]]:
    """The argument of `has_mean_ranks` for `rows`, as of `Study.rows`. All rungs of a ladder are
    one data set: they share their test images."""
    rungs = find_ladders(rows)
    for row in rows:
        dataset = row["dataset"], row["tested_on"]
        if rung := rungs.get(row["dataset"]):
            dataset = rung.ladder, rung.ladder
        yield row["backbone"], dataset, row["loss"]
