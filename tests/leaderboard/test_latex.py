"""The tables of scores in LaTeX: those of the page, letter by letter."""

import re

from dmlbench.leaderboard.latex import escape, render
from dmlbench.leaderboard.page import compose
from dmlbench.leaderboard.statistics.panel import all_statistics
from dmlbench.leaderboard.table import read_results, tabulate


def tex(results):
    read = read_results(results.runs, results.files)
    table = tabulate(read)
    page = compose("made", table, read, statistics=all_statistics(table, read))
    return page, render(page)


def test_the_table_has_the_scores_of_the_page_and_underlines_what_may_be_first(study, results):
    study(("htl", "rll", "softtriple_k1"), seeds=5)
    page, text = tex(results)
    section = page.sections[0]
    lines = {line.partition(" & ")[0]: line for line in text.splitlines() if " & " in line}
    assert [*lines] == ["Loss", *(row.name.replace("_", r"\_") for row in section.rows), "oracle",
                        "untrained", "random"]  # fmt: skip
    ranks, place = section.columns.index("rank"), section.columns.index("MAP@R")
    for row in section.rows:
        score = row.cells[place].text.replace("±", r"\pm")
        may_be_first = row.cells[ranks].text.startswith("1")
        shown = rf"\underline{{${score}$}}" if may_be_first else f"& ${score}$ &"
        assert shown in lines[row.name.replace("_", r"\_")]
    assert text.count(r"\underline{") == sum(row.is_first for row in section.rows) > 0
    assert {line.count(" & ") for line in lines.values()} == {len(section.scores)}
    assert "train time" not in text


def test_a_loss_without_a_score_is_a_row_of_dashes(results):
    results.add("htl", 0, {"map@r": 0.5})
    results.add("rll", 0, status="diverged")
    assert r"rll & -- & -- & -- \\" in tex(results)[1]


def test_no_text_is_a_command():
    text = r"\input{x} $y$ 50% a_b #1 & ~^ <b> | –"
    plain = re.sub(r"\\text\w+\{\}|\\[&%$#_{}]", "", escape(text))
    assert not re.search(r"[\\$%#_&~^<>|]", plain)
    assert escape("é · →") == r"é $\cdot$ $\rightarrow$"
