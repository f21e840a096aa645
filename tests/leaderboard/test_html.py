import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from dmlbench.leaderboard import html, markdown
from dmlbench.leaderboard.content import Cell, Failure, Page, PublishedTable, Row, Section
from dmlbench.leaderboard.page import NOTES, compose
from dmlbench.leaderboard.pictures import Picture
from dmlbench.leaderboard.table import read_results, tabulate

SVG = '<svg xmlns="http://www.w3.org/2000/svg"><text>htl</text></svg>'
HOSTILE = """<script>alert("a")</script>&'"""


class Parsed(HTMLParser):
    """A parsed page: rows of (text, value that sorts), tags with their attributes, and text."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.tags, self.text, self.cell = [], [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.cell = ["", dict(attributes).get("data-value")]
            self.rows[-1].append(self.cell)

    def handle_endtag(self, tag):
        if tag == "table":
            self.cell = None

    def handle_data(self, data):
        self.text.append(data)
        if self.cell:
            self.cell[0] += data.strip("\n")


@pytest.fixture
def plot(tmp_path):
    (tmp_path / "recall.svg").write_text(SVG)
    return [Picture("recall", "recall", tmp_path / "recall.svg")]


def pages(results, plots):
    read = read_results(results.runs, results.files)
    page = compose("made", tabulate(read), read)
    return html.render(page, plots), markdown.render(page)


def test_the_tables_equal_those_in_markdown(study, results, plot):
    study(("htl", "rll"))
    results.add("hpl", 0, status="killed")
    page, text = pages(results, plot)
    in_markdown = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ") and "---" not in line
    ]
    rows = [[cell for cell, _ in row] for row in Parsed(page).rows]
    assert rows == [row for row in in_markdown if row[0] != "control"]


def test_cells_have_the_numbers_that_sort_them_and_holes_have_none(results, plot):
    for seed, value in enumerate((0.02, 0.04)):
        results.add("htl", seed, {"map@r": value}, train_seconds=3600.0)
    results.add("rll", 0, status="killed")
    page, _ = pages(results, plot)
    header, first, second, *_ = Parsed(page).rows
    column = [name for name, _ in header].index("MAP@R")
    assert float(first[column][1]) == pytest.approx(0.03)
    assert first[-2] == ["1 h 00 min", "3600.0"]
    assert second[column] == ["–", None]


def test_names_and_messages_are_escaped_everywhere(plot):
    cells = [Cell(HOSTILE, 1.0)]
    failures = [Failure(HOSTILE, HOSTILE, HOSTILE)]
    section = Section(HOSTILE, HOSTILE, [HOSTILE], [Row(HOSTILE, cells)], [], failures, [HOSTILE])
    section = replace(section, text_columns=(HOSTILE,), controls=section.rows)
    published = PublishedTable([HOSTILE], [[HOSTILE]], [HOSTILE])
    remarks = {HOSTILE: {HOSTILE: HOSTILE}}
    page = Page(HOSTILE, {HOSTILE: HOSTILE}, [section], published, remarks, summary=[HOSTILE])
    page = html.render(page, plot)
    parsed = Parsed(page)
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert "".join(parsed.text).count(HOSTILE) == 22
    assert parsed.rows[1][0][1] == HOSTILE


def test_the_page_loads_nothing(study, results, plot):
    study(("htl",))
    page, _ = pages(results, plot)
    parsed = Parsed(page)
    sources = [
        value for _, attributes in parsed.tags for key, value in attributes.items()
        if key in ("src", "href", "srcset", "data")
    ]  # fmt: skip
    *links, image = sources
    assert links[:4] == [*(f"leaderboard.{kind}" for kind in ("csv", "md", "tex")),
                         "cells/letters/tiny/htl.html"]  # fmt: skip
    assert all(link.startswith("cells/letters/tiny/") for link in links[3:])
    kind, _, data = image.partition(";base64,")
    assert kind == "data:image/svg+xml"
    assert base64.b64decode(data).decode() == SVG
    assert not re.search(r"@import|url\(|https?:", page)
    assert "prefers-color-scheme: dark" in page
    assert " ".join(NOTES.split()) in " ".join("".join(parsed.text).split())


def test_the_page_of_a_large_study_names_the_files_of_its_plots_beside_it(plot, monkeypatch):
    pictures = [plot[0], plot[0]._replace(plot="trees/a/b+c/htl", name="trees/a/b+c/htl")]
    monkeypatch.setattr(html, "MAX_EMBEDDED", 2 * len(SVG) - 1)
    parsed = Parsed(html.render(Page("made", {}, []), pictures))
    sources = [attributes["src"] for tag, attributes in parsed.tags if tag == "img"]
    assert sources == ["plots/recall.svg", "plots/trees/a/b%2Bc/htl.svg"]
    assert "Copy the folder with it." in " ".join(parsed.text)
    monkeypatch.setattr(html, "MAX_EMBEDDED", 2 * len(SVG))
    parsed = Parsed(html.render(Page("made", {}, []), pictures))
    assert all(a["src"].startswith("data:") for tag, a in parsed.tags if tag == "img")
    assert "Copy the folder" not in " ".join(parsed.text)


def test_every_column_has_a_button_to_sort_by(study, results, plot):
    study(("htl",))
    parsed = Parsed(pages(results, plot)[0])
    assert [tag for tag, _ in parsed.tags].count("button") == len(parsed.rows[0])


def test_only_a_table_of_many_columns_is_set_narrowly(results, plot):
    few = ("recall@1", "recall@2", "map@r", "nmi")
    results.add("htl", 0, dict.fromkeys(few, 0.5))
    many = (*few, "recall@4", "recall@8", "r_precision", "map", "mrr", "ami")
    results.add("htl", 0, dict.fromkeys(many, 0.5), dataset="other")
    page, _ = pages(results, plot)
    tables = [attributes for tag, attributes in Parsed(page).tags if tag == "table"]
    assert tables == [{"class": "losses"}] * 2 + [{"class": "losses wide"}]  # overview, few, many
