"""The two questions have a section each; ranks never come without ties."""

import re

import numpy as np
import pytest

from dmlbench.leaderboard.markdown import render
from dmlbench.leaderboard.sections.statistics import (
    AGAIN,
    OTHER_CLASSES,
    SEVERAL,
    UNDECIDED,
    UNTUNED,
)

LEVELS = {"htl": 0.30, "rll": 0.50, "hpl": 0.301}


@pytest.fixture
def fill(results):
    """A function that adds runs with single queries: one loss is far better than two others."""

    def add(levels=None, seeds=5, classes=6, **where):
        random = np.random.default_rng(3)
        for loss, level in (levels or LEVELS).items():
            of_classes = 0.005 * random.normal(size=(classes, 1))
            for seed in range(seeds):
                of_run = level + of_classes + 0.02 * random.normal(size=(classes, 4))
                scores = {"map@r": of_run.mean(), "recall@1": 0.5, "queries": 24.0}
                results.add(loss, seed, scores, queries=of_run, wall_seconds=3600.0, **where)

    return add


def column(section, name):
    """Name of each row -> its text in a column."""
    place = section.columns.index(name)
    return {row.name: row.cells[place].text for row in section.rows}


def test_the_two_questions_are_kept_apart_and_answered(fill, sections):
    fill()
    (again,), (classes,) = sections(AGAIN), sections(OTHER_CLASSES)
    for section in (again, classes):
        assert column(section, "rank") == {"rll": "1", "hpl": "2-3", "htl": "2-3"}
        assert column(section, "ties") == {"rll": "a", "hpl": "b", "htl": "b"}
        assert section.title.endswith("letters · tiny · zero_shot")
        assert section.notes[0].startswith("2 pairs of 3 separated.")
    assert column(again, "behind the first")["htl"].startswith("20.")
    assert " ± " in column(classes, "behind the first")["htl"]
    assert column(again, "p of sign flips")["htl"] == "0.062"
    assert "with 5 seeds it is at least 0.062" in again.notes[0]


def test_the_table_of_scores_has_the_ranks_and_controls_have_none(results, fill, sections):
    fill()
    results.add("control_oracle", 0, {"map@r": 1.0})
    results.add("embeddings_clip", 0, {"map@r": 0.9})
    (scores,) = sections("letters")
    ranks = column(scores, "rank")
    assert ranks == {"embeddings_clip": "–", "rll": "1", "hpl": "2-3", "htl": "2-3"}
    assert [row.cells[0].text for row in scores.controls] == ["–"]
    (again,) = sections(AGAIN)
    assert {row.name for row in again.rows} == LEVELS.keys()


def test_one_seed_has_no_rank(fill, sections, page):
    fill(seeds=1)
    (scores,) = sections("letters")
    assert "no rank: one seed" in scores.facts
    assert "rank" not in scores.columns
    assert sections(AGAIN) == sections(OTHER_CLASSES) == sections(UNDECIDED) == []


def test_two_seeds_answer_the_first_question_only(fill, sections):
    fill(seeds=2)
    assert sections(AGAIN)
    (classes,) = sections(OTHER_CLASSES)
    assert classes.rows == []
    assert classes.facts == "Not answered: it needs 3 seeds that two losses have in common."


def test_classes_are_asked_about_in_the_protocol_whose_queries_were_kept(fill, sections):
    fill(protocols=("small", "large"))
    assert [section.title.rpartition(" ")[2] for section in sections(AGAIN)] == ["small", "large"]
    (classes,) = sections(OTHER_CLASSES)
    assert classes.title.endswith("small")


@pytest.mark.parametrize("is_tuned", [True, False])
def test_untuned_studies_say_that_they_are_no_ranking(fill, results, sections, is_tuned):
    tuned = results.tune("htl", [0.5], {}, [{}])["settings"]
    fill(settings=tuned if is_tuned else {})
    (again,) = sections(AGAIN)
    assert (UNTUNED in again.facts) != is_tuned


def test_undecided_pairs_say_how_many_seeds_would_separate_them_and_what_they_cost(fill, sections):
    fill()
    (undecided,) = sections(UNDECIDED)
    (pair,) = undecided.rows
    assert pair.name == "hpl, htl"
    more = int(column(undecided, "more seeds")["hpl, htl"])
    assert more > 1
    assert column(undecided, "core-hours")["hpl, htl"] == f"{2 * more:.2g}"


def test_a_pair_that_would_need_very_many_seeds_has_no_price(fill, results, sections):
    fill({"htl": 0.3, "rll": 0.8})
    for seed, value in enumerate((0.30, 0.31, 0.32, 0.33, 0.34)):
        results.add("hpl", seed, {"map@r": value})
        results.add("npair", seed, {"map@r": 0.64 - value + 1e-5})
    (undecided,) = sections(UNDECIDED)
    assert column(undecided, "more seeds")["npair, hpl"] == "> 1,000"
    assert column(undecided, "core-hours")["npair, hpl"] == "–"


def test_a_pair_without_common_seeds_is_not_tested_and_said(fill, results, sections):
    fill({"htl": 0.3, "rll": 0.5})
    results.add("hpl", 0, {"map@r": 0.4})
    (again,) = sections(AGAIN)
    assert "2 pairs not tested, because they have too few seeds in common" in again.notes[0]
    assert column(again, "rank") == {"rll": "1-2", "hpl": "1-3", "htl": "2-3"}
    assert column(again, "p") == {"rll": "–", "hpl": "–", "htl": "< 0.001"}
    assert len(sections(UNDECIDED)) == 0


def test_many_undecided_pairs_are_cut(results, sections):
    random = np.random.default_rng(0)
    for number in range(8):
        for seed in range(3):
            results.add(f"loss_{number}", seed, {"map@r": 0.5 + 0.01 * random.normal()})
    (undecided,) = sections(UNDECIDED)
    assert len(undecided.rows) == 20
    assert undecided.notes == ["Not shown: 8 pairs, which need at least as many."]


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_runs_have_no_interval_of_the_probability_of_improvement(fill, sections, seeds):
    for dataset in ("cub", "sop"):
        fill(dataset=dataset, seeds=seeds)
    (several,) = sections(SEVERAL)
    assert column(several, "the first is better")["htl"] == "100 %"


@pytest.mark.parametrize(("classes", "worth"), [(1, "1.0"), (2, "2.0")])
def test_too_few_classes_are_said_and_not_tested(fill, sections, classes, worth):
    fill(classes=classes)
    (section,) = sections(OTHER_CLASSES)
    assert section.rows == []
    assert section.facts == (
        f"Not answered: its queries are of too few classes: {classes}, which are worth {worth} of "
        f"one size, and it needs 3."
    )


def test_hours_of_a_gpu_and_of_a_core_have_no_sum(fill, sections):
    fill({"htl": 0.30}, device="NVIDIA X")
    fill({"rll": 0.50, "hpl": 0.301})
    (undecided,) = sections(UNDECIDED)
    assert column(undecided, "core-hours")["hpl, htl"] == "–"


def test_several_data_sets_have_mean_ranks_and_the_probability_of_improvement(fill, sections):
    for dataset in ("cub", "sop"):
        fill(dataset=dataset)
    (several,) = sections(SEVERAL)
    assert column(several, "mean rank") == {"rll": "1.00", "hpl": "2.00", "htl": "3.00"}
    assert set(column(several, "ties").values()) == {"a"}
    assert column(several, "the first is better")["htl"] == "100 % (100 to 100)"
    assert "ties" in several.text_columns
    assert "Friedman's test of equal mean ranks: statistic 4.00, p 0.14," in several.facts
    assert "by less than 2.34 are tied" in several.facts


def test_one_data_set_has_no_mean_ranks(fill, sections):
    fill()
    assert sections(SEVERAL) == []


def test_the_page_has_no_rank_without_its_interval_of_ties(fill, page):
    """Of losses that are tied, each has the rank of all of them."""
    fill({"htl": 0.3, "rll": 0.3, "hpl": 0.3})
    text = render(page())
    ranks = re.findall(r"^\| (?:htl|rll|hpl) \| (\d[^ ]*) \|", text, re.MULTILINE)
    assert ranks == ["1-3"] * 9
