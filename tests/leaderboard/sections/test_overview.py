"""The overview: who is where on all data sets, backbones and protocols."""

import numpy as np
import pytest
from scipy.stats import rankdata

from dmlbench.evaluation.leaks import WITHOUT_LEAKS
from dmlbench.leaderboard import latex, markdown
from dmlbench.leaderboard.content import Where

DATASETS, BACKBONES = ("letters", "flowers"), ("tiny", "big")


@pytest.fixture
def grid(results):
    """A function that adds losses with these mean scores on each data set and backbone."""

    def add(levels, places, seeds=5):
        random = np.random.default_rng(0)
        for (dataset, backbone), *scores in zip(places, *levels.values(), strict=True):
            for loss, level in zip(levels, scores, strict=True):
                noise = random.normal(size=seeds)
                for seed in range(seeds if level else 0):
                    value = level + 0.002 * (noise[seed] - noise.mean())
                    results.add(loss, seed, {"map@r": value}, dataset=dataset, backbone=backbone)

    return add


def cells(section):
    return {row.name: [cell.text for cell in row.cells] for row in section.rows}


PLACES = [(dataset, backbone) for dataset in DATASETS for backbone in BACKBONES]
LEVELS = {"htl": [0.3, 0.5, 0.3, 0.5], "rll": [0.4, 0.4, 0.4, 0.2], "hpl": [0.2, 0.1, 0.2, 0.3]}


def test_a_row_has_all_scores_of_a_loss_and_its_mean_rank_by_plain_numbers(grid, page):
    grid(LEVELS, PLACES)
    first = page().sections[0]
    assert (first.title, first.columns) == (
        "Overview",
        ["mean rank", "letters · tiny", "letters · big", "flowers · tiny", "flowers · big"],
    )
    ranks = rankdata(-np.array([*LEVELS.values()]), axis=0).mean(axis=1)
    expected = sorted(zip(ranks, LEVELS, strict=True))
    assert [(row.cells[0].text, row.name) for row in first.rows] == [
        (f"{rank:.2f}", loss) for rank, loss in expected
    ]
    for loss, texts in cells(first).items():
        assert [float(text.split()[0]) for text in texts[1:]] == [100 * s for s in LEVELS[loss]]
        assert all(" ± " in text for text in texts[1:])
    assert "over 2 data sets and 2 backbones" in first.facts
    assert first.rows[0].cells[1].link == "cells/letters/tiny/htl.html"
    assert first.column_where[:3] == (
        Where(), Where("letters", "tiny", "zero_shot"), Where("letters", "big", "zero_shot")
    )  # fmt: skip


def test_what_may_be_the_best_of_its_column_is_marked_as_in_the_tables_of_scores(grid, page):
    grid(LEVELS, PLACES)
    overview, *panels = page().sections[:5]
    for number, panel in enumerate(panels, 1):
        marked = {row.name for row in overview.rows if row.cells[number].is_first}
        assert marked == {row.name for row in panel.rows if row.is_first}
        assert marked
    assert not any(row.cells[0].is_first for row in overview.rows)


def test_a_loss_that_lacks_a_score_has_no_mean_rank_and_is_below_the_others(grid, results, page):
    grid({"zzz": [0.9, 0.9, 0.9, None], "htl": [0.3] * 4, "rll": [0.2] * 4}, PLACES)
    results.add("zzz", 0, status="diverged", dataset="flowers", backbone="big")
    results.add("embeddings_clip", 0, {"map@r": 0.9}, dataset="flowers", backbone="big")
    rows = cells(page().sections[0])
    assert [*rows] == ["htl", "rll", "zzz", "embeddings_clip"]
    assert (rows["zzz"][0], rows["zzz"][-1]) == ("–", "–")
    assert rows["embeddings_clip"] == ["–", "–", "–", "–", "90.00"]
    assert [rows[loss][0] for loss in ("htl", "rll")] == ["1.00", "2.00"], (
        "ranks are among the losses that have all scores"
    )


def test_only_the_first_protocol_of_a_data_set_counts_in_the_mean_rank(results, page):
    for dataset, better in (("letters", "htl"), ("flowers", "rll")):
        for loss in ("htl", "rll"):
            score = 0.6 if loss == better else 0.5
            protocols = ("small", "large") if dataset == "letters" else ("zero_shot",)
            results.add(loss, 0, {"map@r": score}, dataset=dataset, protocols=protocols)
    overview = page().sections[0]
    assert overview.columns == [
        "mean rank", "letters · small", "letters · large", "flowers · zero_shot"
    ]  # fmt: skip
    assert [row.cells[0].text for row in overview.rows] == ["1.50", "1.50"]
    assert "mean rank is over 2 data sets;" in overview.facts


def test_controls_are_below_and_have_no_mean_rank(study, page):
    study(("htl", "rll"))
    study(("htl", "rll"), dataset="flowers")
    overview = page().sections[0]
    assert [row.name for row in overview.controls] == [
        "control_oracle", "control_untrained", "control_random"
    ]  # fmt: skip
    assert {row.cells[0].text for row in overview.controls} == {"–"}


def test_one_panel_and_its_scores_without_leaks_have_no_overview(results, page):
    protocols = ("zero_shot", f"zero_shot {WITHOUT_LEAKS}")
    for loss in ("htl", "rll"):
        results.add(loss, 0, {"map@r": 0.5}, protocols=protocols)
    assert page().sections[0].title == "letters · tiny · zero_shot"


def test_where_metrics_differ_each_column_names_its_own(results, page):
    for loss in ("htl", "rll"):
        results.add(loss, 0, {"map@r": 0.5})
        results.add(loss, 0, {"verification_accuracy": 0.75}, tested_on="lfw",
                    backbone="big", protocols=("verification",))  # fmt: skip
    overview = page().sections[0]
    assert overview.columns[1:] == [
        "letters · tiny · zero_shot (MAP@R)",
        "letters → lfw · big · verification (Verification accuracy)",
    ]
    assert cells(overview)["htl"] == ["1.50", "50.00", "75.00"]


def test_the_sentence_says_how_far_the_tests_confirm_the_best_mean_rank(grid, page):
    grid(LEVELS, PLACES)
    (sentence,) = page().summary
    assert sentence == (
        "Over 2 data sets and 2 backbones, htl has the best mean rank (1.50); in 2 of the 4 "
        "columns with tests no loss is significantly better. The same holds for 1 other loss in "
        "at least as many."
    )
    for section in page().sections[1:5]:
        (note,) = section.notes
        assert note.startswith(f"{section.title}: "), "who wins in one panel is said at its table"


def test_protocols_of_one_data_set_have_no_mean_rank_and_a_sentence_each(results, page):
    for loss, score in {"htl": 0.3, "rll": 0.6}.items():
        for seed in range(3):
            results.add(loss, seed, {"map@r": score + seed / 100}, protocols=("small", "large"))
    assert [sentence.partition(":")[0] for sentence in page().summary] == [
        "letters · tiny · small",
        "letters · tiny · large",
    ]


def test_a_data_set_without_scores_leaves_the_other_mean_ranks(grid, results, page):
    grid({"htl": [0.3, 0.4], "rll": [0.4, 0.6]}, PLACES[:2], seeds=2)
    results.add("htl", 0, dataset="broken", status="diverged", error="nan")
    assert cells(page().sections[0])["rll"][0] == "1.00"


def test_equal_mean_ranks_are_shared_and_one_seed_confirms_nothing(grid, page):
    grid({"htl": [0.3, 0.4], "rll": [0.4, 0.3]}, PLACES[:2], seeds=1)
    assert page().summary == ["Over 2 backbones, htl and rll have the best mean rank (1.50)."]


def test_markdown_and_latex_have_it_with_its_marks(grid, page):
    grid(LEVELS, PLACES)
    composed = page()
    overview = composed.sections[0]
    marked = [cell.text for row in overview.rows for cell in row.cells if cell.is_first]
    text = markdown.render(composed)
    table = text.partition("## Overview")[2].partition("## ")[0]
    assert [cell for cell in table.split(" | ") if cell.startswith("**")]
    assert sum(table.count(f"**{text}**") for text in set(marked)) == len(marked)
    tex = latex.render(composed).partition(r"\end{table}")[0]
    assert r"\caption{Overview}" in tex
    assert r"Loss & mean rank & letters $\cdot$ tiny" in tex
    assert tex.count(r"\underline{") == len(marked)
    for score in marked:
        assert rf"\underline{{${score.replace('±', chr(92) + 'pm')}$}}" in tex
