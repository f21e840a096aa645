"""The pages in a browser: they open from the disk, ask for nothing, sort, filter and remember."""

import re
import shutil
import subprocess

import pytest

from dmlbench.leaderboard.build import build

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom")
pytestmark = pytest.mark.skipif(not BROWSER, reason="needs Chromium")
ROW = re.compile(r'<tr([^>]*)><th data-value="([^"]*)"')


@pytest.fixture
def site(study, tmp_path):
    results = study(("htl", "rll", "softtriple"), seeds=3)
    build("made", results.runs, results.files, tmp_path / "site")
    return tmp_path / "site"


@pytest.fixture
def opened(tmp_path):
    """Open a file in the browser: its document once its scripts have run."""

    def open_page(file, fragment=""):
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        command = [BROWSER, *OPTIONS, profile, f"{file.as_uri()}{fragment}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert "CONSOLE" not in done.stderr, done.stderr
        return done.stdout

    return open_page


def rows(document):
    """The names of the rows of the first table, and whether they are shown."""
    table = document[document.index("<tbody>") : document.index('<tbody class="controls">')]
    return {name: "hidden" not in attributes for attributes, name in ROW.findall(table)}


def test_a_page_opens_from_the_disk_without_an_error_or_a_request(site, opened):
    cell = site / "cells/letters/tiny/rll.html"
    for page in (site / "leaderboard.html", cell):
        document = opened(page)
        assert "rll" in document
        assert not re.search(r'(src|href)="(https?:)?//', document)
    for link in re.findall(r'href="([^"]+)"', opened(site / "leaderboard.html")):
        assert (site / link).is_file()
    (back,) = re.findall(r'href="([^"]+)"', opened(cell))
    assert (cell.parent / back).resolve() == site / "leaderboard.html"


def test_the_address_sorts_and_filters(site, opened):
    page = site / "leaderboard.html"
    best_first = [*rows(opened(page))]
    assert len(best_first) == 3
    assert [*rows(opened(page, "#sort=0.2.up"))] == best_first[::-1]  # Recall@1
    assert [*rows(opened(page, "#sort=0.0.up"))] == sorted(best_first)
    assert rows(opened(page, "#filter=rll")) == {name: name == "rll" for name in best_first}
    assert [*rows(opened(page, "#sort=7.99.up&filter="))] == best_first, (
        "a wrong address does nothing"
    )


def test_clicks_sort_and_typing_filters_and_the_address_remembers_it(site, opened, tmp_path):
    page = tmp_path / "clicked.html"
    shutil.copytree(site / "cells", tmp_path / "cells")
    clicks = """<script>
      document.querySelectorAll("th button")[2].click();
      document.querySelectorAll("th button")[2].click();
      const box = document.querySelector("#filter");
      box.value = "ll"; box.dispatchEvent(new Event("input"));
      document.title = location.hash;
    </script></html>"""
    page.write_text((site / "leaderboard.html").read_text().replace("</html>", clicks))
    document = opened(page)
    assert "<title>#sort=0.2.up&amp;filter=ll</title>" in document
    assert [name for name, is_shown in rows(document).items() if is_shown] == ["rll"]
    assert [*rows(document)] == [*rows(opened(site / "leaderboard.html"))][::-1]
