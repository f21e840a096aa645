"""The leaderboard as a page of Markdown tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dmlbench.leaderboard.page import (
    NONE_PUBLISHED,
    NOTES,
    ON_PUBLISHED,
    PUBLISHED,
    TEXTS,
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
        lines = [f"- `{path}`: {_escaped(remarks[path])}" for path in remarks]
        text += [f"## {title}", "\n".join(lines)]
    text.append(f"---\n\n**How to read this.** {NOTES}")
    return "\n\n".join(part for part in text if part)


def _table(kind: str, columns: Sequence[str], rows: Sequence[Row]) -> str:
    cells = [[label(row.loss), *(cell.text for cell in row.cells)] for row in rows]
    return _lines([kind, *columns], cells, texts=[kind]) if rows else ""


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[str]) -> str:
    """A table whose columns `texts` are set to the left, the others to the right."""
    lines = [head, ["---" if name in texts else "---:" for name in head], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _beside(published: Beside) -> list[str]:
    reasons = [f"{n}. {_escaped(reason)}" for n, reason in enumerate(published.reasons, 1)]
    table = NONE_PUBLISHED
    if published.rows:
        table = _lines(published.columns, published.rows, texts=TEXTS)
    return [f"## {PUBLISHED}", ON_PUBLISHED, table, "\n".join(reasons)]


def _escaped(text: str) -> str:
    """Text in one line that Markdown leaves alone; a _ within a word means nothing to it."""
    return re.sub(r"[\\`*\[\]<>|~&]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.split()))


def _failures(failures: Sequence[Failure]) -> str:
    lines = [
        # in backticks, Markdown leaves a message alone
        f"- {runs}: **{status}**: `{message.replace('`', chr(39))}`"
        for runs, status, message in failures
    ]
    return "\n".join(["Failed:", "", *lines]) if lines else ""
