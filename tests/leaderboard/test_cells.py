"""Each cell has a page with all that is known about its runs."""

import pytest

from dmlbench.leaderboard.cells import compose_cells
from dmlbench.leaderboard.choices import read_choices
from dmlbench.leaderboard.html import render_cell
from dmlbench.leaderboard.statistics.panel import all_statistics
from dmlbench.leaderboard.table import read_results, tabulate

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def pages(results):
    """A function that gives the pages of the results: cell -> page."""

    def compose(holes=()):
        read = read_results(results.runs, results.files, dict(holes))
        table = tabulate(read)
        choices, statistics = read_choices(read, results.files), all_statistics(table, read)
        made = compose_cells(results.files, table, read, [], choices, statistics)
        return {page.cell: page for page in made}

    return compose


def section(page, title):
    (found,) = (section for section in page.sections if section.title.startswith(title))
    return found


def cells(section):
    """Name of each row -> column -> text."""
    return {
        row.name: dict(zip(section.columns, (cell.text for cell in row.cells), strict=True))
        for row in (*section.rows, *section.controls)
    }


def test_every_cell_of_the_plan_has_a_page_with_its_seeds_and_their_mean(study, pages):
    study(("htl", "rll"), seeds=3)
    made = pages()
    names = ("control_random", "control_untrained", "control_oracle", "htl", "rll")
    assert [*made] == [f"letters/tiny/{name}" for name in names]
    scores = cells(section(made["letters/tiny/htl"], "Scores"))
    assert [*scores] == ["0", "1", "2", "mean"]
    of_seeds = [float(scores[seed]["MAP@R"]) for seed in "012"]
    mean, _, half = scores["mean"]["MAP@R"].partition(" ± ")
    assert float(mean) == pytest.approx(sum(of_seeds) / 3, abs=0.01)
    assert float(half) > 0
    assert made["letters/tiny/htl"].head["Rank"].endswith(" of 2 (letters · tiny · zero_shot)")


def test_the_commands_that_make_a_cell_again_name_its_commit_and_its_files(study, results, pages):
    study(("htl",), seeds=2)
    assert pages()["letters/tiny/htl"].commands == [
        "git checkout c0ffee",
        f"dmlbench run {results.files.snapshot} -- \\",
        f"  {results.folder}/runs/letters/tiny/htl/seed0/metrics.json \\",
        f"  {results.folder}/runs/letters/tiny/htl/seed1/metrics.json",
    ]


def test_a_tree_with_changes_is_not_the_commit_alone(results, pages):
    results.add("htl", 0, {"map@r": 0.5}, git_commit="c0ffee-dirty")
    command = pages()["letters/tiny/htl"].commands[0]
    assert command == "git checkout c0ffee   # and the changes that it had then"


def test_a_cell_of_two_commits_names_none_to_check_out(results, pages):
    results.add("htl", 0, {"map@r": 0.5})
    results.add("htl", 1, {"map@r": 0.5}, git_commit="decade")
    page = pages()["letters/tiny/htl"]
    assert page.head["Code"] == "c0ffee / decade"
    assert page.commands[0].startswith("dmlbench run ")


def test_settings_that_differ_come_first_with_what_they_differ_from(results, pages):
    space = {"recipe.lr_factor": [0.25, 4.0, "log"]}
    tuned = results.tune("htl", [0.2, 0.4], space, [{"recipe.lr_factor": n} for n in (1.0, 2.0)])
    recipe = {"lr": 0.1, "epochs": 8}
    results.add("htl", 0, {"map@r": 0.5}, recipe=recipe, **tuned)
    for loss in ("rll", "hpl"):
        results.add(loss, 0, {"map@r": 0.5}, recipe=recipe | {"epochs": 9})
    made = pages()
    settings = section(made["letters/tiny/htl"], "Settings")
    assert [row.name for row in settings.rows][:2] == ["recipe.lr", "recipe.epochs"]
    shown = cells(settings)
    assert shown["recipe.lr"] == {"value": "0.2", "before tuning": "0.1", "most cells": ""}
    assert shown["recipe.epochs"] == {"value": "8", "before tuning": "", "most cells": "9"}
    trials = section(made["letters/tiny/htl"], "Trials")
    assert cells(trials)["1"]["chosen"] == "chosen"
    assert [row.name for row in trials.rows] == ["1", "0"]
    assert section(made["letters/tiny/rll"], "Settings").columns == ["value"]


def test_findings_curves_and_the_end_of_the_log_are_on_the_page(results, pages):
    planned = results.add("htl", 0, {"map@r": 0.5}, history=[4.0, 2.0, 1.0])
    finding = {"severity": 2, "name": "small spread", "message": "nearly one vector"}
    results.edit(f"{planned['path']}/metrics.json", findings=[finding])
    log = results.files.run(planned["path"]).train_log
    log.write_text("".join(f"line {number}\n" for number in range(1000)))
    page = pages()["letters/tiny/htl"]
    found = cells(section(page, "Quality control"))
    assert found == {
        "small spread": {"severity": "2", "seed": "0", "what was found": finding["message"]}
    }
    assert page.curves.lines == ["0.0,0.0 200.0,80.0 400.0,120.0"]
    ((name, lines),) = page.logs.items()
    assert name == f"seed 0: {log}"
    assert lines == [f"line {number}" for number in range(985, 1000)]


def test_failed_and_missing_runs_are_said_and_break_nothing(results, pages):
    from dmlbench.leaderboard.table import Hole

    results.add("htl", 0, status="diverged", error="the loss is NaN")
    planned = results.add("htl", 1)
    page = pages({planned["path"]: Hole("not_run", "its job was not started")}.items())[
        "letters/tiny/htl"
    ]
    runs = section(page, "Runs")
    assert {name: row["status"] for name, row in cells(runs).items()} == {
        "0": "diverged",
        "1": "not_run",
    }
    assert [failure.message for failure in runs.failures] == [
        "the loss is NaN",
        "its job was not started",
    ]
    assert "diverged" in render_cell(page)


def test_no_text_of_others_is_taken_for_html(results, pages):
    planned = results.add("htl", 0, {"map@r": 0.5}, device=HOSTILE, recipe={"epochs": HOSTILE})
    finding = {"severity": 2, "name": HOSTILE, "message": HOSTILE}
    results.edit(f"{planned['path']}/metrics.json", findings=[finding])
    results.files.run(planned["path"]).train_log.write_text(f"{HOSTILE}\n")
    page = render_cell(pages()["letters/tiny/htl"])
    assert "<img" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") >= 6
