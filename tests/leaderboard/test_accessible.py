"""axe-core finds nothing serious on the pages, light or dark: `make axe` installs it."""

import json

import pytest

from dmlbench.leaderboard.build import build

from .browser import DARK, Browser, needs_axe, needs_browser

pytestmark = [needs_browser, needs_axe]


@pytest.fixture
def site(study, results, tmp_path):
    for dataset in ("letters", "flowers"):
        study(("htl", "rll", "softtriple"), seeds=3, dataset=dataset)
    results.add("hpl", 0, status="diverged", error="the loss is nan", history=[1.0, 2.0])
    for file in results.folder.rglob("history.parquet"):
        file.with_name("log.txt").write_text("epoch 1\nepoch 2\n")
    build("made", results.runs, results.files, tmp_path / "site")
    return tmp_path / "site"


def problems(site, tmp_path, page, *options):
    return Browser(tmp_path).find_problems(site / page, *options)


def test_no_page_has_a_problem_of_accessibility_light_or_dark(site, tmp_path):
    found = {
        f"{page} {' '.join(options)}": problems(site, tmp_path, page, *options)
        for page in (
            "leaderboard.html",
            "cells/letters/tiny/rll.html",
            "cells/letters/tiny/hpl.html",
        )
        for options in ((), (DARK,))
    }
    assert not any(found.values()), json.dumps(found, indent=2)


def test_axe_finds_a_field_without_a_name(site, tmp_path):
    page = site / "leaderboard.html"
    text = page.read_text("utf-8").replace('<label>loss <input id="filter"', "<input ", 1)
    page.write_text(text.replace('placeholder="part of its name"></label>', ">", 1), "utf-8")
    found = problems(site, tmp_path, "leaderboard.html")
    assert ["critical", "label"] in [problem[:2] for problem in found]
