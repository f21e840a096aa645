"""What two cells differ in, settings, code, versions and scores; and the scores of several
studies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dmlbench.leaderboard.cells import flat_settings
from dmlbench.leaderboard.content import HOLE, Cell, Row, Section, score_cell
from dmlbench.leaderboard.sections.scores import shown_metrics
from dmlbench.leaderboard.statistics.means import summarise
from dmlbench.leaderboard.statistics.paired import compare_seeds
from dmlbench.leaderboard.table import Result, panels, tabulate
from dmlbench.study.row_names import is_control

if TYPE_CHECKING:
    import pandas as pd

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
    is_paired = _test_images(first[0]) == _test_images(second[0])
    for panel in panels(tabulate(first)):
        if panel.protocol and panel.protocol in of_second:
            both = [panel.rows, of_second[panel.protocol].rows]
            rows = [
                _score_row(name, [rows[rows["metric"] == metric] for rows in both], is_paired)
                for metric, name in shown_metrics(panel, first[0]).items()
            ]
            yield _score_section(f"Scores: {panel.protocol}", names, rows, is_paired, "metric")


def study_sections(studies: Mapping[str, Sequence[Result]]) -> Iterator[Section]:
    """The scores of the losses of several studies side by side: a section for each data set,
    backbone and protocol that the first study has, by the metric that ranks losses.

    Args:
        studies: name -> its results.
    """
    first, *others = (
        {panel.title: panel for panel in panels(tabulate(results))} for results in studies.values()
    )
    for title, panel in first.items():
        shown = [panel, *(panels_of[title] for panels_of in others if title in panels_of)]
        if len(shown) < len(studies):
            continue
        images = [
            _test_images(next(result for result in results if of.holds(result)))
            for of, results in zip(shown, studies.values(), strict=True)
        ]
        is_paired = len(shown) == 2 and images[0] == images[1]
        scores = [of.rows[of.rows["metric"] == panel.main_metric] for of in shown]
        losses = dict.fromkeys(str(loss) for rows in scores for loss in rows["loss"])
        rows = [
            _score_row(loss, [rows[rows["loss"] == loss] for rows in scores], is_paired)
            for loss in losses
        ]
        rows.sort(key=lambda row: -(row.cells[-1 - 2 * is_paired].value or 0))
        name = f"{title}: {panel.metrics[panel.main_metric]}"
        section = _score_section(name, [*studies], rows, is_paired, "loss")
        controls = [row for row in rows if is_control(row.name)]
        yield replace(section, rows=[r for r in rows if r not in controls], controls=controls)


def _score_section(
    title: str, names: Sequence[str], rows: list[Row], is_paired: bool, kind: str
) -> Section:
    if is_paired:
        facts = (
            f"In percent. The difference is {names[1]} - {names[0]}; it and its p-value (Student's "
            f"t, of this pair alone) are of the seeds that both have."
        )
    elif len(names) == 2:
        facts = "In percent. The test images are not the same, so there is no difference."
    else:
        facts = "In percent."
    return Section(
        title, facts, [*names, *(["difference", "p"] if is_paired else [])], rows, names=kind
    )


def _score_row(name: str, scores: Sequence[pd.DataFrame], is_paired: bool) -> Row:
    """The means of several cells, and the difference of two.

    Args:
        scores: of each cell, the rows of the long table of one loss and metric.
    """
    cells = []
    for rows in scores:
        means = summarise(rows).to_dict("records")
        cells += [score_cell(mean["mean"], mean["half_width"]) for mean in means] or [Cell(HOLE)]
    if is_paired:
        cells += _test(*(rows.dropna(subset="value") for rows in scores))
    return Row(name, cells)


def _test(first: pd.DataFrame, second: pd.DataFrame) -> tuple[Cell, Cell]:
    """The mean of the paired differences, second - first, in percent, and the p-value."""
    of_first, of_second = (rows.set_index("seed")["value"] for rows in (first, second))
    seeds = [seed for seed in of_first.index if seed in of_second.index]
    if not seeds:
        return Cell(HOLE), Cell(HOLE)
    values = np.array([[of[seed] for seed in seeds] for of in (of_second, of_first)])
    mean = float(np.mean(values[0] - values[1]))
    p_value = float(compare_seeds(values).p_values[0])
    p_cell = Cell(HOLE) if np.isnan(p_value) else Cell(f"{p_value:.2g}", -p_value)
    return Cell(f"{100 * mean:+.2f}", mean), p_cell


def _test_images(result: Result) -> Any:
    """The settings that decide which images are tested."""
    settings = result.run["settings"]
    return settings.get("test", settings["dataset"])


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
