"""Names of classes and levels are what a data set says, and stand on the page letter by letter."""

import json
import re
import xml.etree.ElementTree as ElementTree
from html import escape
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dmlbench.leaderboard import html, markdown, templating
from dmlbench.leaderboard.build import build
from dmlbench.leaderboard.content import Cell, Page, Row, Section
from dmlbench.leaderboard.plots.figure import save
from dmlbench.leaderboard.plots.tree import tree
from dmlbench.leaderboard.table import read_results
from dmlbench.utils.text import OBEYED, literal

HOSTILE = [
    "$x$", r"$\frac{1}{0}", "a$b", r"\alpha", "100 %", "a|b", "`code`", "<b>bold</b>", "a\nb",
    "a\tb", "\x00", "\x1b[2J", "a\ud800b", "\u202ecba", "\ufffe", "[x](javascript:x)", "&amp;",
    "]]>", "_a_", "*a*", "# a", "日本", "",
]  # fmt: skip
NAMES = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=12))
QUICK = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def add_tree(results, classes, level):
    planned = results.add("htl", len(results.runs), {"map@r": 0.5}, history=[1.0],
                          levels=(level,), tree="trees/letters/tiny/htl")  # fmt: skip
    merges = [[0, 1, 1.0, 2], [2, 3, 2.0, 2], [4, 5, 3.0, 4]]
    artefact = {
        "train_key": planned["train_key"],
        "classes": classes,
        "super_classes": {"level_1": [classes[0], classes[0], classes[1], classes[1]]},
        "learnt": {"merges": merges, "thresholds": [1.5]},
    }
    file = results.files.run(planned["path"]).loss_artefact
    file.parent.mkdir()
    file.write_text(json.dumps(artefact))


@pytest.mark.filterwarnings("ignore:Glyph")
@QUICK
@given(st.lists(NAMES, min_size=4, max_size=4, unique=True), NAMES)
@example([r"$\frac{1}{0}", "$$", "\x00\x1b", "\ud800\ufffe"], "$_")
def test_a_tree_shows_the_names_of_its_classes_letter_by_letter(tmp_path_factory, classes, level):
    from .conftest import Results

    folder = tmp_path_factory.mktemp("tree")
    results = Results(folder / "results")
    add_tree(results, classes, level)
    svg = folder / "tree.svg"
    save(tree(read_results(results.runs, results.files)), [svg, svg.with_suffix(".png")])
    shown = " ".join("".join(ElementTree.parse(svg).getroot().itertext()).split())
    for name in classes:
        assert literal(name) in shown


@given(NAMES)
def test_literal_text_is_one_line_of_characters_that_xml_may_hold(text):
    plain = literal(text)
    assert len(plain.splitlines()) <= 1
    assert ElementTree.fromstring(f"<a>{escape(templating._text(text))}</a>").text in (plain, None)
    assert not OBEYED.search(plain)
    assert literal(plain) == plain


@given(NAMES)
def test_a_level_is_a_cell_of_the_tables_whatever_its_name(level):
    cells = [Cell("50.00", 0.5)]
    page = Page("made", {}, [Section("s", "f", [level], [Row("htl", cells)])])
    text = markdown.render(page)
    header, rule, row = [line for line in text.splitlines() if line.startswith("|")]
    assert re.sub(r"\\(.)", "", header).count("|") == rule.count("|") == row.count("|") == 3
    assert re.sub(r"\\(.)", r"\1", header) == f"| loss | {literal(level)} |"
    parser = HTMLParser()
    heads = []
    parser.handle_starttag = lambda tag, _: heads.append(tag)
    parser.feed(html.render(page, []))
    assert heads.count("button") == 2
    assert not {"b", "code"} & set(heads)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_whole_leaderboard_is_made_of_hostile_texts(results, tmp_path):
    for number in range(0, len(HOSTILE) - 4, 4):
        add_tree(results, HOSTILE[number : number + 4], HOSTILE[number])
    for seed, text in enumerate(HOSTILE):
        results.add("rll", seed, status="error", error=f"bad {text}")
    assert build("made", results.runs, results.files, tmp_path) == {}
    for svg in tmp_path.rglob("*.svg"):
        ElementTree.parse(svg)
    for name in ("leaderboard.md", "leaderboard.html", "leaderboard.csv"):
        text = (tmp_path / name).read_text("utf-8")
        assert not OBEYED.search(text.replace("\n", ""))
    assert len(pd.read_csv(tmp_path / "leaderboard.csv")) == len(results.runs)
