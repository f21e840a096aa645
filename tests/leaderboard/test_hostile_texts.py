"""Names of classes and levels are what a data set says, and stand on the page letter by letter."""

import json
import re
import xml.etree.ElementTree as ElementTree
from html import escape, unescape
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dmlbench.leaderboard import comparison, html, latex, markdown, templating
from dmlbench.leaderboard.build import build
from dmlbench.leaderboard.comparison import Comparison
from dmlbench.leaderboard.content import Cell, CellPage, Failure, Page, Row, Section, Where
from dmlbench.leaderboard.plots.figure import save
from dmlbench.leaderboard.plots.tree import tree
from dmlbench.leaderboard.table import read_results
from dmlbench.study.published import read_published
from dmlbench.utils.text import OBEYED, literal

from .browser import Browser, needs_browser

HOSTILE = [
    "$x$", r"$\frac{1}{0}", "a$b", r"\alpha", "100 %", "a|b", "`code`", "<b>bold</b>", "a\nb",
    "a\tb", "\x00", "\x1b[2J", "a\ud800b", "\u202ecba", "\ufffe", "[x](javascript:x)", "&amp;",
    "]]>", "_a_", "*a*", "# a", "日本", "",
]  # fmt: skip
IMAGE, FORMULA = "<img src=x onerror=alert(1)>", "=cmd|' /C calc'!A0"
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


def hostile_page(name):
    """A page on which every text is `name`."""
    rows = [Row(name, [Cell(name, 1.0, is_first=True)])] * 2
    failures, where = [Failure(name, name, name)], Where(name, name, name)
    section = Section(name, name, [name], rows, rows, failures, [name], scores=(name,), where=where)
    other = Section("other", "", [name, "b"], [], scores=("b",), where=Where("b", "b", "b"))
    return Page(name, {name: name}, [section, other], summary=[name], families={name: name})


@pytest.mark.parametrize("name", [IMAGE, FORMULA])
def test_markdown_and_latex_show_a_hostile_name_letter_by_letter(name):
    page = hostile_page(name)
    text = re.sub(r"`[^`]*`", "", markdown.render(page))
    assert name in re.sub(r"\\(.)", r"\1", text)
    assert not re.search(r"(?<!\\)[<|]", re.sub(r"(?m)^\| | \| | \|$", "", text))
    tex = latex.render(page)
    shown = tex.replace(r"\textless{}", "<").replace(r"\textgreater{}", ">")
    assert rf"\caption{{{name}}}" in shown.replace(r"\textbar{}", "|")
    assert not re.search(r"[<>|]", tex)


def test_a_name_of_latex_is_no_option_of_the_row_before_it():
    page = hostile_page("[x]")
    assert not re.search(r"\\\\\s*[\[*]", latex.render(page))


@needs_browser
@pytest.mark.parametrize("name", [IMAGE, FORMULA])
def test_pages_show_a_hostile_name_as_text_and_so_do_their_controls(name, tmp_path):
    page, cell = hostile_page(name), tmp_path / "cell.html"
    (tmp_path / "page.html").write_text(html.render(page, []), "utf-8")
    logs = {name: [name]}
    cell.write_text(
        html.render_cell(CellPage(name, f"a/b/{name}", name, page.head, page.sections, [name],
                                  logs=logs)), "utf-8",
    )  # fmt: skip
    script = """
    window.alert = () => { throw new Error("an alert"); };
    const box = document.querySelector("#filter");
    if (box) { box.value = "="; box.dispatchEvent(new Event("input")); }
    document.querySelector(".of-table button:last-child").click();
    await new Promise((done) => setTimeout(done, 50));
    return [document.images.length, document.querySelector("h1").textContent,
      document.querySelector("tbody th").textContent.trim(),
      document.querySelector(".of-table button").getAttribute("aria-label"),
      [...document.querySelectorAll("option")].map((of) => of.value)];
    """
    for file in (tmp_path / "page.html", cell):
        images, title, row, label, options = Browser(tmp_path).ask(file, script)
        assert (images, title, row, label) == (0, name, name, f"copy {name}")
        assert options.count(name) == (0 if file == cell else 3)


def test_no_cell_of_a_csv_is_a_formula_and_ordinary_errors_are_as_they_were(results, tmp_path):
    errors = {FORMULA: f"'{FORMULA}", "@SUM(A1)": "'@SUM(A1)", "-1+2": "'-1+2", "+1": "'+1",
              "\t =1": "'=1", IMAGE: IMAGE, "the loss is nan = not finite": None}  # fmt: skip
    for seed, error in enumerate(errors):
        results.add("rll", seed, status="error", error=error)
    build("made", results.runs, results.files, tmp_path)
    table = pd.read_csv(tmp_path / "leaderboard.csv")
    assert [*table["error"]] == [written or error for error, written in errors.items()]
    assert FORMULA in re.sub(r"\s+", " ", unescape((tmp_path / "leaderboard.html").read_text()))


def test_no_text_of_the_comparison_begins_as_a_formula(tmp_path):
    """They are the project's own texts, and names that a study checks."""
    comparisons = [
        Comparison("cub200", "big", "htl", published, None, float("nan"), 0, ["dim: 64 here"])
        for published in read_published()
    ]
    comparison.write_csv(comparisons, tmp_path / "comparison.csv")
    table = pd.read_csv(tmp_path / "comparison.csv", dtype=str, keep_default_na=False)
    assert len(table) == len(comparisons)
    texts = table.drop(columns=["paper_says", "we_got", "half_width", "difference"])
    assert not texts.map(lambda text: text.startswith(("=", "+", "-", "@"))).to_numpy().any()
