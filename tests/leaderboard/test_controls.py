"""The controls of the page: what they hide in a browser, what they copy, and what is left out."""

import codecs
import csv
import io
import re

import pytest

from dmlbench.leaderboard import html
from dmlbench.leaderboard.content import Cell, Page, Row, Section, Where
from dmlbench.leaderboard.html import render
from dmlbench.leaderboard.page import compose
from dmlbench.leaderboard.table import read_results, tabulate

from .browser import Browser, needs_browser

FAMILIES = {"htl": "tree", "rll": "ranking", "triplet": "pairs"}
STATE = """
const isShown = (of) => of.checkVisibility();
const texts = (all) => [...all].filter(isShown).map((of) => of.textContent.trim());
const first = document.querySelector("table");
return {
  address: location.hash,
  sections: texts(document.querySelectorAll("section h2")),
  columns: texts(first.tHead.rows[0].cells),
  panel: texts(document.querySelectorAll("table")[1].tHead.rows[0].cells),
  losses: texts([...first.tBodies[0].rows].map((row) => row.cells[0])),
  controls: texts([...first.tBodies[1].rows].map((row) => row.cells[0])),
};
"""


@pytest.fixture
def page(study, tmp_path):
    """The page of three losses on two data sets with two backbones; without plots."""
    for dataset in ("letters", "flowers"):
        for backbone in ("tiny", "big"):
            results = study((*FAMILIES,), seeds=2, dataset=dataset, backbone=backbone)
    for planned in results.runs:
        if planned["loss"] in FAMILIES:
            kind = {"loss": {"type": planned["loss"]}}
            results.edit(f"{planned['path']}/run.json", settings=planned["settings"] | kind)
    read = read_results(results.runs, results.files)
    file = tmp_path / "leaderboard.html"
    file.write_text(render(compose("made", tabulate(read), read), []), "utf-8")
    return file


@pytest.fixture
def ask(page, tmp_path):
    def ask(script=STATE, fragment=""):
        return Browser(tmp_path).ask(page, script, fragment)

    return ask


def choose(name, value):
    return f"""
    const select = document.querySelector('[data-filter="{name}"]');
    select.value = "{value}"; select.dispatchEvent(new Event("change"));
    """


@needs_browser
def test_a_data_set_and_a_backbone_hide_sections_and_columns_of_the_others(ask):
    shown = ask(choose("dataset", "flowers") + STATE)
    assert shown["columns"] == ["loss", "mean rank", "flowers · tiny", "flowers · big"]
    titles = shown["sections"]
    assert titles[:3] == ["Overview", "flowers · tiny · zero_shot", "flowers · big · zero_shot"]
    assert not any("letters" in title for title in titles)
    assert "Quality control" in titles, "what is about all data sets stays"
    assert shown["address"] == "#dataset=flowers"
    both = ask(fragment="#dataset=flowers&backbone=big")
    assert both["columns"] == ["loss", "mean rank", "flowers · big"]
    assert both["sections"][:2] == ["Overview", "flowers · big · zero_shot"]
    assert ask(choose("dataset", "") + STATE, "#dataset=flowers")["address"] == ""


@needs_browser
def test_a_family_hides_the_losses_of_the_others_and_no_control(ask):
    everything = ask()
    assert {*everything["losses"]} == {*FAMILIES}
    for fragment in ("#family=ranking", "#family=ranking&filter=l"):
        shown = ask(fragment=fragment)
        assert shown["losses"] == ["rll"]
    assert ask(choose("family", "pairs") + STATE)["losses"] == ["triplet"]
    assert ask(fragment="#family=tree")["controls"] == everything["controls"] != []


@needs_browser
def test_a_column_that_is_not_checked_is_hidden_in_all_tables(ask):
    uncheck = "document.querySelector('[data-column=\"Recall@2\"]').click();"
    shown = ask(uncheck + STATE)
    assert shown["address"] == "#hide=Recall%402"
    assert "Recall@1" in shown["panel"]
    assert "Recall@2" not in shown["panel"]
    hidden = ask(
        uncheck + "return [...document.querySelectorAll('table')].map((table) =>"
        "[...table.rows].map((row) => [...row.cells].filter((cell) => cell.hidden).length));"
    )
    overview, *panels = hidden[:5]
    assert set(overview) == {0}
    assert all(set(rows) == {1} for rows in panels)
    again = ask(fragment="#hide=Recall%402&hide=seeds")
    assert {"Recall@2", "seeds"} & set(again["panel"]) == set()
    assert ask(uncheck + STATE, "#hide=Recall%402")["address"] == ""


SAVED = """
let saved;
URL.createObjectURL = (blob) => { saved = blob; return "about:blank"; };
HTMLAnchorElement.prototype.click = function () { saved.name = this.download; };
document.querySelector("h2 + .of-table button:last-child").click();
const mark = [...new Uint8Array(await saved.arrayBuffer()).slice(0, 3)];
return [saved.name, mark, await saved.text()];
"""


@needs_browser
def test_a_csv_holds_what_is_shown(ask):
    fragment = "#dataset=flowers&filter=l&sort=0.0.up"
    name, mark, text = ask(SAVED, fragment)
    assert name == "Overview.csv"
    assert bytes(mark) == codecs.BOM_UTF8, "spreadsheets read it as UTF-8"
    rows = [*csv.reader(io.StringIO(text))]
    assert rows[0] == ["loss", "mean rank", "flowers · tiny", "flowers · big"]
    assert [row[0] for row in rows[1:]] == ["htl", "rll", "triplet", "oracle"]
    assert re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d", rows[1][2])


@needs_browser
def test_a_table_is_copied_with_and_without_a_clipboard(ask):
    copy = """
    let copied;
    const press = async () => {
      document.querySelector("h2 + .of-table button").click();
      await new Promise((done) => setTimeout(done, 50));
      return copied;
    };
    const clipboard = { writeText: async (text) => { copied = text; } };
    Object.defineProperty(navigator, "clipboard", { value: clipboard, configurable: true });
    const first = await press();
    copied = "";
    Object.defineProperty(navigator, "clipboard", { value: undefined });
    document.execCommand = () => { copied = document.activeElement.value; };
    return [first, await press(), document.querySelector("[role=status]").textContent];
    """
    first, second, said = ask(copy)
    assert first == second
    lines = [line.split("\t") for line in first.split("\n")]
    assert lines[0] == ["loss", "mean rank", *(f"{d} · {b}" for d in ("letters", "flowers")
                                               for b in ("tiny", "big"))]  # fmt: skip
    assert {len(line) for line in lines} == {6}
    assert said == "Overview: copied"


@needs_browser
def test_a_spreadsheet_runs_no_cell_and_numbers_stay_numbers(tmp_path):
    texts = ["=1+1", "+cmd|' /C calc'!A0", "-x", "@SUM(A1)", "-0.25", "+1.50", "-1.2 %", "-1 ± 2",
             'a,"b"', "–"]  # fmt: skip
    cells = [Cell(text) for text in texts]
    section = Section("=t", "", [f"c{n}" for n in range(len(texts))], [Row("-evil", cells)])
    file = tmp_path / "page.html"
    file.write_text(render(Page("made", {}, [section]), []), "utf-8")
    name, _, text = Browser(tmp_path).ask(file, SAVED)
    assert name == "_t.csv"
    _, row, *_ = csv.reader(io.StringIO(text))
    assert row == ["'-evil", "'=1+1", "'+cmd|' /C calc'!A0", "'-x", "'@SUM(A1)", *texts[4:]]


@needs_browser
def test_paper_shows_what_the_screen_hides(page, ask):
    page.write_text(page.read_text("utf-8").replace("@media print", "@media screen"), "utf-8")
    shown = ask(fragment="#dataset=flowers&filter=none_of_them&hide=NMI&hide=seeds")
    assert shown == ask() | {"address": shown["address"]}
    assert {*shown["losses"]} == {*FAMILIES}


def test_a_control_that_has_one_value_is_left_out():
    def controls(*sections, families=None):
        page = html.render(Page("made", {}, [*sections], families=families or {}), [])
        return re.findall(r'data-(filter|column)="([^"]*)"', page)

    def section(*place, columns=("MAP@R",)):
        rows = [Row("htl", [Cell("1")] * len(columns))]
        return Section("s", "", [*columns], rows, scores=("MAP@R",), where=Where(*place))

    one = section("letters", "tiny", "zero_shot")
    assert controls(one, families={"htl": "tree"}) == []
    assert controls(one, section("flowers", "tiny", "zero_shot")) == [("filter", "dataset")]
    assert controls(one, section("letters", "big")) == [("filter", "backbone")]
    assert controls(one, section("letters", "tiny", "large")) == [("filter", "protocol")]
    families = {"htl": "tree", "rll": "ranking"}
    assert controls(one, families=families) == [("filter", "family")]
    two = section("letters", "tiny", columns=("MAP@R", "NMI"))
    assert controls(two) == [("column", "MAP@R"), ("column", "NMI")]
