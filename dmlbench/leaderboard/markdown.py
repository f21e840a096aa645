"""The leaderboard as a page of Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

from dmlbench.leaderboard.page import (
    NONE_PUBLISHED,
    NOTES,
    ON_PUBLISHED,
    PUBLISHED,
    Beside,
    Failure,
    Page,
    Row,
)
from dmlbench.leaderboard.table import label


def render(page: Page) -> str:
    """A head, a table of the losses and one of the controls a section, and how to read it."""
    text = [f"# {page.title}", "\n".join(f"- {name}: {page.head[name]}" for name in page.head)]
    for section in page.sections:
        text += [
            f"## {section.title}",
            section.facts,
            _table("loss", section.columns, section.losses),
            _table("control", section.columns, section.controls),
            _failures(section.failures),
        ]
    text += _beside(page.published) if page.published else []
    for title, remarks in page.remarks.items():
        text += [f"## {title}", "\n".join(f"- `{path}`: {remarks[path]}" for path in remarks)]
    text.append(f"---\n\n**How to read this.** {NOTES}")
    return "\n\n".join(part for part in text if part)


def _table(kind: str, columns: Sequence[str], rows: Sequence[Row]) -> str:
    cells = [[label(row.loss), *(cell.text for cell in row.cells)] for row in rows]
    return _lines([kind, *columns], cells) if rows else ""


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _beside(published: Beside) -> list[str]:
    reasons = [f"{number}. {reason}" for number, reason in enumerate(published.reasons, 1)]
    table = _lines(published.columns, published.rows) if published.rows else NONE_PUBLISHED
    return [f"## {PUBLISHED}", ON_PUBLISHED, table, "\n".join(reasons)]


def _failures(failures: Sequence[Failure]) -> str:
    lines = [
        # in backticks, Markdown leaves a message alone
        f"- {runs}: **{status}**: `{message.replace('`', chr(39))}`"
        for runs, status, message in failures
    ]
    return "\n".join(["Failed:", "", *lines]) if lines else ""
