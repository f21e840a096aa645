"""The leaderboard's page as one HTML file: sortable tables and the plots.

It loads nothing. Only the page of a large study leaves its plots in the files beside it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote

from dmlbench.leaderboard.content import (
    Cell,
    Failure,
    Page,
    PublishedTable,
    Row,
    Section,
)
from dmlbench.leaderboard.made_of import failed_plot_lines
from dmlbench.leaderboard.page import NOTES
from dmlbench.leaderboard.pictures import Picture
from dmlbench.leaderboard.sections import published as published_numbers
from dmlbench.leaderboard.style import colour
from dmlbench.study.published import UNCONFIRMED
from dmlbench.study.row_names import display_name
from dmlbench.utils.text import literal

CAPTIONS = {
    "recall": "MAP@R and Recall@1: mean over seeds with its 95 % interval, and single seeds",
    "recall_curves": "Recall@K against K: mean over seeds, and single seeds; axes: log K, log odds",
    "time": "Recall against training time: mean over seeds, with the 95 % interval of the score",
    "training": "Loss against epoch: one line for each seed; the scales differ",
    "trials": "Tuning: the best validation score so far against the trials spent",
    "trial_settings": "Tuning: the settings of the best trials of each loss; thick: the chosen one",
    "critical_difference": "Mean ranks over data sets; a thick line joins what is not separated",
    "trees": "The tree of the training classes that a loss has learnt: where classes were merged",
}
MAX_EMBEDDED = 4_000_000
"""Bytes of plots that a page holds."""
BESIDE = (
    "The plots of this large study are in the folder <code>plots</code> beside this page. Copy the "
    "folder with it."
)
STYLE = """\
:root { color-scheme: light dark; --ink: #222; --faded: #666; --line: #ddd; --paper: #fff;
  --stripe: #f6f6f4; --accent: #2f6690; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e0; --faded: #a2a29c; --line: #3c3c3a;
  --paper: #1b1b1a; --stripe: #232322; --accent: #8cbbe0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 110rem; padding: 1.5rem 1.5rem 4rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .75rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .25rem; }
p, li, figcaption { max-width: 60rem; }
.faded, figcaption { color: var(--faded); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0;
  font-size: .875rem; }
dt { color: var(--faded); }
dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .65rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper);
  text-align: left; font-weight: inherit; }
tbody tr:nth-child(even) > * { background: var(--stripe); }
.wide td span { display: block; font-size: .75rem; line-height: 1.2; }
.wide { font-size: .8125rem; }
.wide :is(th, td) { padding-inline: .4rem; }
.wide thead th { white-space: normal; vertical-align: bottom; }
.text { text-align: left; }
.published thead th { font-weight: 600; }
.published :is(th, td):is(:nth-child(-n+4), :nth-child(6)) { text-align: left; }
.controls, td span { color: var(--faded); }
.controls tr:first-child > * { border-top: 2px solid var(--faded); }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:hover { color: var(--accent); }
th button:focus-visible { outline: 2px solid var(--accent); }
th button::after { content: "\\2195"; padding-left: .25em; opacity: .35; }
[aria-sort=descending] button::after { content: "\\2193"; opacity: 1; }
[aria-sort=ascending] button::after { content: "\\2191"; opacity: 1; }
i { display: inline-block; width: .7em; height: .7em; margin-right: .5em; border-radius: 50%; }
figure { margin: 2rem 0 0; }
img { max-width: 100%; width: 50rem; border-radius: 4px; background: #fff; }
"""
MAX_NARROW = 11  # columns; a wider table puts intervals below their means, to fit 1400 pixels
# The first click on a column sorts the best to the top, or names from a to z; holes stay below.
SCRIPT = """\
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const sorted = head.getAttribute("aria-sort");
    const isText = head.dataset.text !== undefined;
    const down = sorted ? sorted === "ascending" : !isText;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.value;
    const order = (a, b) => isText ? a.localeCompare(b) : a - b;
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((left, right) => {
      const [a, b] = [value(left), value(right)];
      if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
      return down ? order(b, a) : order(a, b);
    }));
  }));
}
"""


def render(page: Page, pictures: Sequence[Picture]) -> str:
    """The page with its plots in it, or beside it if they are large.

    Args:
        pictures: they are in the folder `plots` beside the page.
    """
    head = "".join(f"<dt>{_text(name)}<dd>{_text(text)}" for name, text in page.head.items())
    is_large = sum(picture.svg.stat().st_size for picture in pictures) > MAX_EMBEDDED
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(page.title)}</title>\n<style>\n{STYLE}</style>",
            f"<h1>{_text(page.title)}</h1>\n<dl>{head}</dl>",
            *(_section(section) for section in page.sections),
            *([_published(page.published)] if page.published else []),
            *(_remarks(title, remarks) for title, remarks in page.remarks.items()),
            f"<h2>How to read this</h2>\n<p>{_text(NOTES)}</p>\n<h2>Plots</h2>",
            *([f"<p>{BESIDE}</p>"] if is_large else []),
            *(f"<p>{_text(line)}" for line in failed_plot_lines(page.failed_plots)),
            *(_plot(picture, is_large) for picture in pictures),
            f"<script>\n{SCRIPT}</script>\n</html>\n",
        ]
    )


def _text(text: str) -> str:
    """`text` as HTML that shows exactly these letters."""
    return escape(literal(text))


def _section(section: Section) -> str:
    notes = "".join(f"\n<p>{_text(note)}</p>" for note in section.notes)
    return "\n".join(
        [
            f'<h2>{_text(section.title)}</h2>\n<p class="faded">{_text(section.facts)}</p>',
            _section_table(section) if section.rows or section.controls else "",
            _failures(section.failures) + notes,
        ]
    )


def _section_table(section: Section) -> str:
    kinds = [" data-text" * (name in section.text_columns) for name in section.columns]
    columns = [
        f"<th{kind}><button>{_text(name)}</button>"
        for name, kind in zip(
            [section.names, *section.columns], [" data-text", *kinds], strict=True
        )
    ]
    wide = ' class="wide"' if len(columns) > MAX_NARROW else ""
    return "\n".join(
        [
            f'<div class="scroll"><table{wide}>\n<thead><tr>{"".join(columns)}</thead>',
            f"<tbody>{_rows(section, section.rows)}</tbody>",
            f'<tbody class="controls">{_rows(section, section.controls)}</tbody>\n</table></div>',
        ]
    )


def _rows(section: Section, rows: Sequence[Row]) -> str:
    is_text = [column in section.text_columns for column in section.columns]
    return "".join(
        f"\n<tr>{_name(section, row.name)}"
        + "".join(
            _text_cell(cell) if text else _cell(cell)
            for cell, text in zip(row.cells, is_text, strict=True)
        )
        for row in rows
    )


def _name(section: Section, row: str) -> str:
    name = _text(display_name(row))
    dot = f'<i style="background: {colour(row)}"></i>' if section.names == "loss" else ""
    return f'<th data-value="{name}">{dot}{name}'


def _text_cell(cell: Cell) -> str:
    return f'<td class="text" data-value="{_text(cell.text)}">{_text(cell.text)}'


def _cell(cell: Cell) -> str:
    mean, sign, interval = cell.text.partition(" ± ")
    text = _text(mean) + (f" <span>± {_text(interval)}</span>" if sign else "")
    return f"<td>{text}" if cell.value is None else f'<td data-value="{cell.value!r}">{text}'


def _failures(failures: Sequence[Failure]) -> str:
    lines = [
        f"<li>{_text(runs)}: <b>{_text(status)}</b>: <code>{_text(message)}</code>"
        for runs, status, message in failures
    ]
    return f"<p>Failed:</p>\n<ul>{''.join(lines)}</ul>" if lines else ""


def _published(published: PublishedTable) -> str:
    columns = "".join(f"<th>{_text(name)}" for name in published.columns)
    rows = [
        f"\n<tr{_row_class(row)}><th>{_text(row[0])}"
        f"{''.join(_cell(Cell(text)) for text in row[1:])}"
        for row in published.rows
    ]
    reasons = "".join(f"<li>{_text(reason)}" for reason in published.reasons)
    table = (
        f'<div class="scroll"><table class="published">\n<thead><tr>{columns}</thead>'
        f"<tbody>{''.join(rows)}</tbody>\n</table></div>\n<ol>{reasons}</ol>"
    )
    return (
        f"<h2>{published_numbers.TITLE}</h2>\n"
        f'<p class="faded">{_text(published_numbers.NOTES)}</p>\n'
        f"{table if rows else f'<p>{published_numbers.NO_NUMBERS}</p>'}"
    )


def _row_class(row: Sequence[str]) -> str:
    """Unconfirmed numbers are faded."""
    return ' class="faded"' if UNCONFIRMED in row else ""


def _remarks(title: str, remarks: Mapping[str, str]) -> str:
    lines = [f"<li><code>{_text(path)}</code>: {_text(remarks[path])}" for path in remarks]
    return f"<h2>{_text(title)}</h2>\n<ul>{''.join(lines)}</ul>"


def _plot(picture: Picture, is_beside: bool) -> str:
    caption = CAPTIONS[picture.plot.partition("/")[0]]
    if is_beside:
        source = quote(f"plots/{picture.name}.svg")
        loading = ' loading="lazy"'
    else:
        source = f"data:image/svg+xml;base64,{b64encode(picture.svg.read_bytes()).decode()}"
        loading = ""
    return (
        f'<figure><figcaption>{caption}</figcaption><img alt="{caption}"'
        f' src="{source}"{loading}></figure>'
    )
