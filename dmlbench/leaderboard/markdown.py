"""The leaderboard's page as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dmlbench.leaderboard.content import Cell, Failure, Page, PublishedTable, Row, Section
from dmlbench.leaderboard.made_of import failed_plot_lines
from dmlbench.leaderboard.page import NOTES
from dmlbench.leaderboard.sections import published as published_numbers
from dmlbench.study.row_names import display_name
from dmlbench.utils.text import literal


def render(page: Page) -> str:
    """The page as text: its head, the tables of losses and of controls, and how to read it."""
    head = [f"- {_escape(name)}: {_escape(text)}" for name, text in page.head.items()]
    summary = [f"**{_escape(sentence)}**" for sentence in page.summary]
    parts = [f"# {_escape(page.title)}", *summary, "\n".join(head)]
    for section in page.sections:
        parts += [
            f"## {_escape(section.title)}",
            _escape(section.facts),
            _section_table(section, section.names, section.rows),
            _section_table(section, "control", section.controls),
            _failures(section.failures),
            *map(_escape, section.notes),
        ]
    parts += _published(page.published) if page.published else []
    for title, remarks in page.remarks.items():
        lines = [f"- {_code(path)}: {_escape(remarks[path])}" for path in remarks]
        parts += [f"## {title}", "\n".join(lines)]
    parts.append("\n".join(f"- {_escape(line)}" for line in failed_plot_lines(page.failed_plots)))
    parts.append(f"---\n\n**How to read this.** {NOTES}")
    return "\n\n".join(part for part in parts if part)


def _section_table(section: Section, names: str, rows: Sequence[Row]) -> str:
    cells = [[_escape(display_name(row.name)), *map(_cell, row.cells)] for row in rows]
    text_columns = [names, *section.text_columns]
    return _table([names, *section.columns], cells, text_columns) if rows else ""


def _cell(cell: Cell) -> str:
    return f"**{_escape(cell.text)}**" if cell.is_first else _escape(cell.text)


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], text_columns: Sequence[str]
) -> str:
    """A table of escaped `rows`, with `text_columns` to the left, and all others to the right."""
    rule = ["---" if name in text_columns else "---:" for name in columns]
    lines = [[*map(_escape, columns)], rule, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _published(published: PublishedTable) -> list[str]:
    reasons = [f"{n}. {_escape(reason)}" for n, reason in enumerate(published.reasons, 1)]
    table = published_numbers.NO_NUMBERS
    if published.rows:
        rows = [[*map(_escape, row)] for row in published.rows]
        table = _table(published.columns, rows, published_numbers.TEXT_COLUMNS)
    return [f"## {published_numbers.TITLE}", published_numbers.NOTES, table, "\n".join(reasons)]


def _escape(text: str) -> str:
    """The text on one line, with everything escaped that Markdown would interpret.

    An underscore within a word stays: Markdown does not interpret it.
    """
    return re.sub(r"[\\`*\[\]<>|~&]|(?<!\w)_|_(?!\w)", r"\\\g<0>", literal(text))


def _code(text: str) -> str:
    """The text in backticks: Markdown interprets nothing in it."""
    return f"`{literal(text).replace('`', chr(39))}`"


def _failures(failures: Sequence[Failure]) -> str:
    lines = [
        f"- {_escape(runs)}: **{_escape(status)}**: {_code(message)}"
        for runs, status, message in failures
    ]
    return "\n".join(["Failed:", "", *lines]) if lines else ""
