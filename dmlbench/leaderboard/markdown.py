"""The leaderboard's page as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dmlbench.leaderboard.page import (
    NO_PUBLISHED_NUMBERS,
    NOTES,
    PUBLISHED_NOTES,
    PUBLISHED_TITLE,
    TEXT_COLUMNS,
    Failure,
    Page,
    PublishedTable,
    Row,
)
from dmlbench.study.row_names import display_name


def render(page: Page) -> str:
    """The page as text: its head, the tables of losses and of controls, and how to read it."""
    parts = [f"# {page.title}", "\n".join(f"- {name}: {page.head[name]}" for name in page.head)]
    for section in page.sections:
        parts += [
            f"## {section.title}",
            section.facts,
            _score_table("loss", section.columns, section.losses),
            _score_table("control", section.columns, section.controls),
            _failures(section.failures),
        ]
    parts += _published(page.published) if page.published else []
    for title, remarks in page.remarks.items():
        lines = [f"- `{path}`: {_escape(remarks[path])}" for path in remarks]
        parts += [f"## {title}", "\n".join(lines)]
    parts.append(f"---\n\n**How to read this.** {NOTES}")
    return "\n\n".join(part for part in parts if part)


def _score_table(first_column: str, columns: Sequence[str], rows: Sequence[Row]) -> str:
    cells = [[display_name(row.loss), *(cell.text for cell in row.cells)] for row in rows]
    return _table([first_column, *columns], cells, text_columns=[first_column]) if rows else ""


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], text_columns: Sequence[str]
) -> str:
    """A table with `text_columns` aligned to the left, and all others to the right."""
    rule = ["---" if name in text_columns else "---:" for name in columns]
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, rule, *rows])


def _published(published: PublishedTable) -> list[str]:
    reasons = [f"{n}. {_escape(reason)}" for n, reason in enumerate(published.reasons, 1)]
    table = NO_PUBLISHED_NUMBERS
    if published.rows:
        table = _table(published.columns, published.rows, TEXT_COLUMNS)
    return [f"## {PUBLISHED_TITLE}", PUBLISHED_NOTES, table, "\n".join(reasons)]


def _escape(text: str) -> str:
    """The text on one line, with everything escaped that Markdown would interpret.

    An underscore within a word stays: Markdown does not interpret it.
    """
    return re.sub(r"[\\`*\[\]<>|~&]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.split()))


def _failures(failures: Sequence[Failure]) -> str:
    lines = [
        # Markdown does not interpret a message in backticks
        f"- {runs}: **{status}**: `{message.replace('`', chr(39))}`"
        for runs, status, message in failures
    ]
    return "\n".join(["Failed:", "", *lines]) if lines else ""
