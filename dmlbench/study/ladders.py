"""Which data sets of a study are rungs of one ladder: the same images with different holdouts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Any, NamedTuple

from dmlbench.datasets.store.part import RUNGS
from dmlbench.study.run import json_key

MAKES_NUMBERS = False


class Rung(NamedTuple):
    """The place of a data set in its ladder."""

    ladder: str
    """The name of the ladder: what the names of its data sets begin with, or all of them."""
    number: int
    """Its place in RUNGS: the lower, the nearer are the training classes to the test classes."""
    name: str
    """What is unseen in training: "class", or the level of super-classes by its name."""
    is_nearest: bool
    """Whether no other data set of the ladder has a lower number."""


def find_ladders(rows: Iterable[Mapping[str, Any]]) -> dict[str, Rung]:
    """Name of each data set that is a rung of a ladder -> its rung.

    Data sets with holdouts are rungs of one ladder if nothing else differs in them. If two have the
    same holdout, because their recipes differ, the second one begins a ladder of its own.

    Args:
        rows: as `Study.rows` gives them.

    >>> data = {"type": "cub200", "facts": {"levels": ["genus"]}}
    >>> rows = [{"dataset": f"birds_{rung}", "settings": {"dataset": {**data, "holdout": rung}}}
    ...         for rung in ("class", "level_1")]
    >>> [(name, *rung) for name, rung in find_ladders(rows).items()]
    [('birds_class', 'birds', 0, 'class', True), ('birds_level_1', 'birds', 1, 'genus', False)]
    """
    ladders: dict[str, list[dict[int, str]]] = {}  # of equal images -> number of a rung -> its name
    levels: dict[str, list[str]] = {}
    for row in {row["dataset"]: row for row in rows}.values():
        data = dict(row["settings"]["dataset"])
        if holdout := data.pop("holdout", None):
            same, number, name = json_key(data), RUNGS.index(holdout), row["dataset"]
            levels[name] = ["class", *data["facts"]["levels"]]
            of_same = ladders.setdefault(same, [])
            free = next((ladder for ladder in of_same if number not in ladder), None)
            if free is None:
                of_same.append({number: name})
            else:
                free[number] = name
    rungs: dict[str, Rung] = {}
    taken: set[str] = set()
    for ladder in (ladder for of_same in ladders.values() for ladder in of_same):
        if len(ladder) > 1:
            title = _title([ladder[number] for number in sorted(ladder)], taken)
            taken.add(title)
            for number, name in sorted(ladder.items()):
                rungs[name] = Rung(title, number, levels[name][number], number == min(ladder))
    return rungs


def _title(names: list[str], taken: set[str]) -> str:
    """What the names begin with, if it says something and no other ladder has it."""
    equal = takewhile(lambda letters: len({*letters}) == 1, zip(*names, strict=False))
    prefix = "".join(first for first, *_ in equal).rstrip("_-.+")
    return prefix if len(prefix) > 1 and prefix not in taken else " / ".join(names)
