"""What a table gains that chooses by the test score stands beside the reported means."""

import pytest

from dmlbench.leaderboard import html, markdown
from dmlbench.leaderboard.page import compose
from dmlbench.leaderboard.sections.optimism import optimism_sections
from dmlbench.leaderboard.table import read_results, tabulate


@pytest.fixture
def add(results):
    """A function that adds a run with scores (last, best) by metric."""

    def run(loss, seed, scores, protocols=("zero_shot",), **where):
        last = {metric: values[0] for metric, values in scores.items()}
        planned = results.add(loss, seed, last, protocols=protocols, history=[1.0], **where)
        rows = [
            {"protocol": protocol, "metric": metric, "best_epoch": 3}
            | {"best": best + 0.001, "last": at_end + 0.001, "gap": best - at_end}
            for protocol in protocols
            for metric, (at_end, best) in scores.items()
        ]
        results.edit(f"{planned['path']}/metrics.json", optimism=rows)

    return run


def read(results):
    return read_results(results.runs, results.files)


def test_the_gains_are_those_of_the_best_epoch_the_best_seed_and_both(add, results):
    add("htl", 0, {"map@r": (0.30, 0.34)})
    add("htl", 1, {"map@r": (0.40, 0.40)})
    add("htl", 2, {"map@r": (0.35, 0.42)})
    add("margin", 0, {"map@r": (0.50, 0.51)})
    (section,) = optimism_sections(read(results))
    assert section.columns == ["MAP@R", "MAP@R: best epoch", "MAP@R: best seed", "MAP@R: both"]
    margin, htl = section.rows
    assert [cell.text for cell in margin.cells] == ["50.00", "+1.00", "+0.00", "+1.00"]
    # mean 35; gains of the epochs 4, 0, 7; the best seed has 40, and at its best epoch 42
    assert htl.name == "htl"
    assert [cell.text for cell in htl.cells] == ["35.00", "+3.67", "+5.00", "+7.00"]


def test_metrics_have_their_own_columns_and_protocols_and_data_sets_their_own_sections(
    add, results
):
    scores = {"map@r": (0.3, 0.3), "recall@1": (0.6, 0.7)}
    add("htl", 0, scores, protocols=("small", "large"))
    add("htl", 0, scores, dataset="birds")
    sections = optimism_sections(read(results))
    assert [section.title.partition(": ")[2] for section in sections] == [
        "letters · tiny · small",
        "letters · tiny · large",
        "birds · tiny · zero_shot",
    ]
    assert sections[0].columns[4:6] == ["Recall@1", "Recall@1: best epoch"]
    assert [cell.text for cell in sections[0].rows[0].cells[4:]] == [
        "60.00",
        "+10.00",
        "+0.00",
        "+10.00",
    ]


def test_the_page_says_that_these_are_no_results(add, results):
    results.add("control_random", 0, {"map@r": 0.02})
    results.add("htl", 1, status="diverged")
    add("htl", 0, {"map@r": (0.3, 0.35)})
    runs = read(results)
    page = compose("made", tabulate(runs), runs)
    for text in (markdown.render(page), html.render(page, {})):
        assert "Optimism gap: letters · tiny · zero_shot" in text
        assert "These are no results of this study: nothing here is chosen by a test score." in text
    assert "| htl | 30.00 | +5.00 | +0.00 | +5.00 |" in markdown.render(page)


def test_a_study_that_does_not_report_it_has_no_such_section(results):
    results.add("htl", 0, {"map@r": 0.3}, history=[1.0])
    assert optimism_sections(read(results)) == []
