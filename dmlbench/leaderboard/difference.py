"""What two cells differ in: settings, code, versions and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dmlbench.leaderboard.cells import flat_settings
from dmlbench.leaderboard.content import HOLE, Cell, Row, Section, score_cell
from dmlbench.leaderboard.sections.scores import shown_metrics
from dmlbench.leaderboard.statistics.means import summarise
from dmlbench.leaderboard.statistics.paired import compare_seeds
from dmlbench.leaderboard.table import Panel, Result, panels, tabulate

ABSENT = "(none)"


def difference_sections(
    first: Sequence[Result], second: Sequence[Result], names: tuple[str, str]
) -> Iterator[Section]:
    """What two cells differ in. Nothing that is equal in both is shown.

    Args:
        first, second: the runs of the two cells.
        names: of the cells, as columns show them.
    """
    for title, kind, read in PARTS:
        yield _differing(title, kind, read(first[0]), read(second[0]), names)
    yield from _scores(first, second, names)


def _differing(
    title: str,
    kind: str,
    first: Mapping[str, str],
    second: Mapping[str, str],
    names: tuple[str, str],
) -> Section:
    rows = [
        Row(key, [Cell(first.get(key, ABSENT)), Cell(second.get(key, ABSENT))])
        for key in dict.fromkeys([*first, *second])
        if first.get(key) != second.get(key)
    ]
    facts = "" if rows else "No difference."
    return Section(title, facts, [*names], rows, names=kind, text_columns=names)


def _scores(
    first: Sequence[Result], second: Sequence[Result], names: tuple[str, str]
) -> Iterator[Section]:
    """The scores of the two cells by each protocol that both have."""
    of_second = {panel.protocol: panel for panel in panels(tabulate(second))}
    for panel in panels(tabulate(first)):
        if panel.protocol and panel.protocol in of_second:
            yield _compare(panel, of_second[panel.protocol], first[0], names)


def _compare(first: Panel, second: Panel, run: Result, names: tuple[str, str]) -> Section:
    means = [summarise(panel.rows).droplevel("loss").to_dict("index") for panel in (first, second)]
    is_paired = first.tested_on == second.tested_on
    rows = []
    for metric, name in shown_metrics(first, run).items():
        cells = [
            score_cell(mean[metric]["mean"], mean[metric]["half_width"])
            if metric in mean
            else Cell(HOLE)
            for mean in means
        ]
        difference, p_value = _test(first, second, metric) if is_paired else (HOLE, HOLE)
        rows.append(Row(name, [*cells, Cell(difference), Cell(p_value)]))
    return Section(
        title=f"Scores: {first.protocol}",
        facts="In percent. The difference and its p-value (Student's t, of this pair alone) are of "
        "the seeds that both cells have."
        if is_paired
        else "In percent. The test images are not the same, so there is no difference.",
        columns=[*names, "difference", "p"],
        rows=rows,
        names="metric",
    )


def _test(first: Panel, second: Panel, metric: str) -> tuple[str, str]:
    """The mean of the paired differences in percent, and the p-value."""
    scores = [
        panel.rows[panel.rows["metric"] == metric].set_index("seed")["value"]
        for panel in (first, second)
    ]
    seeds = [seed for seed in scores[0].index if seed in scores[1].index]
    values = np.array([[of[seed] for seed in seeds] for of in scores], dtype=np.float64)
    if not seeds:
        return HOLE, HOLE
    mean = f"{100 * float(np.mean(values[0] - values[1])):+.2f}"
    p_value = float(compare_seeds(values).p_values[0])
    return mean, HOLE if np.isnan(p_value) else f"{p_value:.2g}"


def _versions(result: Result) -> dict[str, str]:
    origin = result.run["provenance"]
    machine = {name: str(origin[name]) for name in ("device", "driver") if origin.get(name)}
    return machine | {name: str(v) for name, v in origin.get("versions", {}).items()}


def _code(result: Result) -> dict[str, str]:
    digests: dict[str, Any] = {**result.metrics.get("code", {}), **result.run.get("code", {})}
    return {module: str(digest)[:12] for module, digest in digests.items()}


def _settings(result: Result) -> dict[str, str]:
    flat = flat_settings(result.run["settings"])
    return {name: text for name, text in flat.items() if name != "seed"}


PARTS: list[tuple[str, str, Callable[[Result], Mapping[str, str]]]] = [
    ("Settings", "setting", _settings),
    ("Code", "module", _code),
    ("Machine and versions", "name", _versions),
]
