"""The leaderboard, a cell of it, and what two cells differ in, as tables in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dmlbench.leaderboard.cells import commands_of, compose_cells
from dmlbench.leaderboard.choices import read_choices
from dmlbench.leaderboard.comparison import compare
from dmlbench.leaderboard.content import Row, Section, shared_settings
from dmlbench.leaderboard.difference import difference_sections, study_sections
from dmlbench.leaderboard.page import recipes_of
from dmlbench.leaderboard.sections.scores import score_sections
from dmlbench.leaderboard.sections.summary import summary_sentences
from dmlbench.leaderboard.statistics.panel import all_statistics
from dmlbench.leaderboard.style import colour
from dmlbench.leaderboard.table import Result, read_available_results, tabulate
from dmlbench.study.row_names import display_name
from dmlbench.utils.errors import MissingResult
from dmlbench.utils.text import literal

if TYPE_CHECKING:
    from dmlbench.study.study import Study

WIDE = 200
"""Columns of an output that is no terminal, such as a file: no row is folded there."""


def show_study(study: Study) -> None:
    """Print the scores of a study, as far as it has results, and who wins.

    Raises:
        MissingResult: it has no result yet.
    """
    results = _read(study, study.rows)
    table = tabulate(results)
    statistics = all_statistics(table, results)
    recipes = recipes_of(results)
    recipe = shared_settings(recipes.values())
    console = make_console()
    _show_head(console, study.name, {}, [*summary_sentences(statistics).values()])
    for section in score_sections(table, results, recipes, recipe, statistics):
        show_section(console, section)


def show_cell(study: Study, cell: str) -> None:
    """Print all that is known about a cell, as dataset/backbone/loss, but its curves and logs.

    Raises:
        StudyError: the study has no such cell.
        MissingResult: it has no result yet.
    """
    results = _read(study, study.rows_of(cell))
    table = tabulate(results)
    comparisons = [*compare(table, results, study.remarks)]
    choices = read_choices(results, study.files)
    (page,) = compose_cells(study.files, table, results, comparisons, choices, {})
    console = make_console()
    _show_head(console, page.title, page.head)
    for section in page.sections:
        show_section(console, section)
    console.print(Text("Make it again", "bold"))
    print(*page.commands, sep="\n")


def show_difference(first: tuple[Study, str], second: tuple[Study, str]) -> None:
    """Print what two cells differ in: settings, code, versions and scores.

    Args:
        first, second: each a study and a cell of it, as dataset/backbone/loss.

    Raises:
        StudyError: a study has no such cell.
        MissingResult: a cell has no result yet.
    """
    results = [_read(study, study.rows_of(cell)) for study, cell in (first, second)]
    names = [cell for _, cell in (first, second)]
    if first[0].name != second[0].name:
        names = [f"{study.name}/{cell}" for study, cell in (first, second)]
    console = make_console()
    for section in difference_sections(results[0], results[1], (names[0], names[1])):
        show_section(console, section)


def show_studies(studies: Sequence[Study]) -> None:
    """Print the scores of the losses of several studies side by side.

    Raises:
        MissingResult: a study has no result yet.
    """
    results = {study.name: _read(study, study.rows) for study in studies}
    console = make_console()
    sections = [*study_sections(results)]
    for section in sections:
        show_section(console, section)
    if not sections:
        console.print("The studies have no data set, backbone and protocol in common.")


def show_commands(study: Study, cell: str) -> None:
    """Print the commands that make a cell again, as dataset/backbone/loss.

    Raises:
        StudyError: the study has no such cell.
    """
    rows = study.rows_of(cell)
    results = read_available_results(rows, study.files)
    print(*commands_of(study.files, [row["path"] for row in rows], results), sep="\n")


def _read(study: Study, rows: Sequence[Mapping[str, Any]]) -> list[Result]:
    results = read_available_results(rows, study.files)
    if not results:
        raise MissingResult(f"{study.name}: no result yet. What it waits for: dmlbench status")
    return results


def make_console() -> Console:
    """Where tables are printed: in colours on a terminal, and plainly elsewhere."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


def show_section(console: Console, section: Section) -> None:
    """Print a section: its title, table, failures and notes."""
    console.print(Text(literal(section.title), "bold"))
    if section.facts:
        console.print(Text(literal(section.facts), "dim"))
    if section.rows or section.controls:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(section.names, header_style="dim")
        for name in section.columns:
            is_text = name in section.text_columns
            table.add_column(
                Text(literal(name)), justify="left" if is_text else "right", header_style="dim"
            )
        _add_rows(table, section, section.rows)
        if section.controls:
            table.add_section()
        _add_rows(table, section, section.controls, "dim")
        console.print(table)
    for runs, status, message in section.failures:
        console.print(Text(literal(f"{runs}: {status}: {message}")))
    for note in section.notes:
        console.print(Text(literal(note)))
    console.print()


def _show_head(
    console: Console, title: str, head: dict[str, str], summary: Sequence[str] = ()
) -> None:
    console.print(Text(literal(title), "bold underline"))
    for sentence in summary:
        console.print(Text(literal(sentence)))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, text in head.items():
        table.add_row(Text(literal(name), "dim"), Text(literal(text)))
    console.print(table)


def _add_rows(table: Table, section: Section, rows: Sequence[Row], style: str = "") -> None:
    for row in rows:
        name = Text(literal(display_name(row.name)))
        if section.names == "loss":
            name = Text.assemble(("● ", colour(row.name)), name)
        table.add_row(name, *(Text(literal(cell.text)) for cell in row.cells), style=style)
