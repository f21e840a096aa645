"""The pages in a browser: they open from the disk, ask for nothing, sort, filter and remember."""

import re

import pytest

from dmlbench.leaderboard.build import build

from .browser import DARK, Browser, needs_browser

pytestmark = needs_browser
ROW = re.compile(r'<tr([^>]*)><th scope="row" data-value="([^"]*)"')


@pytest.fixture
def site(study, tmp_path):
    results = study(("htl", "rll", "softtriple"), seeds=3)
    build("made", results.runs, results.files, tmp_path / "site")
    return tmp_path / "site"


@pytest.fixture
def browser(tmp_path):
    return Browser(tmp_path)


def rows(document):
    """The names of the rows of the first table, and whether they are shown."""
    table = document[document.index("<tbody>") : document.index('<tbody class="controls">')]
    return {name: "hidden" not in attributes for attributes, name in ROW.findall(table)}


def test_a_page_opens_from_the_disk_without_an_error_or_a_request(site, browser):
    cell = site / "cells/letters/tiny/rll.html"
    for page in (site / "leaderboard.html", cell):
        document = browser.open(page)
        assert "rll" in document
        assert not re.search(r'(src|href)="(https?:)?//', document)
        asked = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
        assert [name for name in browser.ask(page, asked) if not name.startswith("data:")] == []
    for link in re.findall(r'href="([^"]+)"', browser.open(site / "leaderboard.html")):
        assert (site / link).is_file()
    (back,) = re.findall(r'href="([^"]+)"', browser.open(cell))
    assert (cell.parent / back).resolve() == site / "leaderboard.html"


def test_the_address_sorts_and_filters(site, browser):
    page = site / "leaderboard.html"
    best_first = [*rows(browser.open(page))]
    assert len(best_first) == 3
    assert [*rows(browser.open(page, "#sort=0.2.up"))] == best_first[::-1]  # Recall@1
    assert [*rows(browser.open(page, "#sort=0.0.up"))] == sorted(best_first)
    assert rows(browser.open(page, "#filter=RLL")) == {name: name == "rll" for name in best_first}
    nonsense = "#sort=7.99.up&filter=&dataset=none&family=none&hide=none"
    assert rows(browser.open(page, nonsense)) == dict.fromkeys(best_first, True)


def test_clicks_sort_and_typing_filters_and_the_address_remembers_it(site, browser):
    page = site / "leaderboard.html"
    clicks = """
      document.querySelectorAll("th button")[2].click();
      document.querySelectorAll("th button")[2].click();
      const box = document.querySelector("#filter");
      box.value = "ll"; box.dispatchEvent(new Event("input"));
      const rows = [...document.querySelector("tbody").rows];
      return [location.hash, document.querySelector("[role=status]").textContent,
        rows.map((row) => [row.cells[0].dataset.value, row.hidden])];
    """
    address, said, shown = browser.ask(page, clicks)
    assert address == "#sort=0.2.up&filter=ll"
    assert said == "shown: rll"
    assert [name for name, is_hidden in shown if not is_hidden] == ["rll"]
    assert [name for name, _ in shown] == [*rows(browser.open(page))][::-1]


def test_a_dark_screen_has_a_dark_page_and_paper_a_white_one(site, browser):
    ink = "const of = getComputedStyle(document.body); return [of.color, of.backgroundColor]"
    page = site / "leaderboard.html"
    assert browser.ask(page, ink) == ["rgb(34, 34, 34)", "rgb(255, 255, 255)"]
    assert browser.ask(page, ink, "", DARK) == ["rgb(228, 228, 224)", "rgb(27, 27, 26)"]
    assert "@media screen and (prefers-color-scheme: dark)" in page.read_text("utf-8")


def test_on_a_phone_tables_scroll_and_the_page_does_not(site, browser, tmp_path):
    """A window of Chromium is at least 500 pixels wide, so the page is in a frame."""
    for page in (site / "leaderboard.html", site / "cells/letters/tiny/rll.html"):
        tell = """<script>addEventListener("load", () => {
          const tables = [...document.querySelectorAll(".scroll")];
          for (const table of tables) table.scrollLeft = 9999;
          const hidden = tables.map((of) => of.scrollWidth - of.clientWidth - of.scrollLeft);
          parent.postMessage([innerWidth, document.documentElement.scrollWidth,
            Math.max(...tables.map((of) => of.scrollWidth)), Math.max(...hidden)], "*");
        });</script></html>"""
        copy = page.with_name("narrow.html")
        copy.write_text(page.read_text("utf-8").replace("</html>", tell), "utf-8")
        phone = tmp_path / "phone.html"
        phone.write_text(f"""<!doctype html><title>0</title><script>
          addEventListener("message", (event) => {{ document.title = event.data; }});</script>
          <iframe style="width: 390px; height: 844px; border: 0" src="{copy.as_uri()}"></iframe>""")
        document = browser.open(phone, "", "--virtual-time-budget=5000", "--hide-scrollbars")
        (title,) = re.findall("<title>([^<]+)", document)
        width, page_width, table_width, hidden = map(float, title.split(","))
        assert (width, page_width) == (390, 390)
        assert table_width > width
        assert hidden < 2, "the ends of the tables can be reached"
