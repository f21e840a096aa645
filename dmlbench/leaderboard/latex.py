r"""The tables of scores in LaTeX, for a paper: `\input{leaderboard.tex}`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dmlbench.leaderboard.content import HOLE, Page, Row, Section
from dmlbench.study.row_names import display_name
from dmlbench.utils.text import literal

HEAD = r"""% \usepackage{booktabs}
% Scores in percent: the mean over seeds, with half the width of its 95 % interval (Student's t).
% Underlined: no loss is better by a paired t test over the seeds, corrected for all pairs.
"""
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # at the beginning of a row it would be an option of the \\ before it
    "–": "--",
    "·": r"$\cdot$",
    "→": r"$\rightarrow$",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}
SIGNS = re.compile("|".join(map(re.escape, SPECIAL)))


def render(page: Page) -> str:
    """The tables of `page` that hold scores, each with the columns of its metrics."""
    return "\n".join([HEAD, *(_table(section) for section in page.sections if section.scores)])


def _table(section: Section) -> str:
    places = [place for place, name in enumerate(section.columns) if name in section.scores]
    heads = [escape(section.columns[place]) for place in places]
    ranked = section.columns.index(section.scores[0])
    rules = [
        [_row(row, places, ranked) for row in part] for part in (section.rows, section.controls)
    ]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(section.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * len(places)}}}",
            r"\toprule",
            " & ".join(["Loss", *heads]) + r" \\",
            *(line for rows in rules if rows for line in (r"\midrule", *rows)),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _row(row: Row, places: Sequence[int], ranked: int) -> str:
    cells = [
        _score(cell.text, cell.is_first or (row.is_first and place == ranked))
        for place, cell in ((place, row.cells[place]) for place in places)
    ]
    return " & ".join([escape(display_name(row.name)), *cells]) + r" \\"


def _score(text: str, is_first: bool) -> str:
    if text == HOLE:
        return "--"
    number = escape(text).replace("±", r"\pm")
    return rf"\underline{{${number}$}}" if is_first else f"${number}$"


def escape(text: str) -> str:
    r"""Text that LaTeX shows letter by letter.

    >>> escape("softtriple_k1 & 50 %")
    'softtriple\\_k1 \\& 50 \\%'
    """
    return SIGNS.sub(lambda sign: SPECIAL[sign[0]], literal(text))
