"""The rungs of a ladder stand beside each other, with the fall from the first to the last one."""

import json

import numpy as np
import pytest
from scipy import stats

from dmlbench.leaderboard import markdown
from dmlbench.leaderboard.content import HOLE, Where

RUNGS = ("class", "level_1", "level_2")
SCORES = {
    "class": {"htl": (0.50, 0.54, 0.58), "rll": (0.40, 0.41, 0.42)},
    "level_1": {"htl": (0.30, 0.31, 0.32), "rll": (0.30, 0.33, 0.36)},
    "level_2": {"htl": (0.10, 0.12, 0.17), "rll": (0.20, 0.22, 0.21)},
}


@pytest.fixture
def add(results):
    """A function that adds a run of a rung."""

    def run(rung, loss, seed, score, levels=("genus", "family"), **where):
        data = {"type": "csv", "facts": {"levels": [*levels]}, "holdout": rung}
        scores = {"map@r": score, "recall@1": score + 0.1, "recall@10": 1.0}
        where = {"dataset": f"birds_{rung}", "settings": {"dataset": data}, **where}
        return results.add(loss, seed, scores, **where)

    return run


@pytest.fixture
def ladder(add):
    """All runs of SCORES, and a control."""
    for rung, of_losses in SCORES.items():
        add(rung, "control_untrained", 0, 0.05)
        for loss, scores in of_losses.items():
            for seed, score in enumerate(scores):
                add(rung, loss, seed, score)


def texts(row):
    return [cell.text for cell in row.cells]


@pytest.mark.usefixtures("ladder")
def test_a_row_has_the_means_of_each_rung_and_the_fall_over_pairs_of_seeds(sections):
    (section,) = sections("Taxonomy ladder")
    assert section.title == "Taxonomy ladder: birds · tiny · zero_shot"
    names = ["class unseen", "genus unseen", "family unseen", "fall"]
    assert section.columns == [f"{m}, {name}" for m in ("MAP@R", "Recall@1") for name in names]
    assert [row.name for row in section.rows] == ["rll", "htl"]  # by the last rung
    htl = section.rows[1]
    expected = [SCORES[rung]["htl"] for rung in RUNGS]
    expected.append(np.subtract(expected[0], expected[-1]))
    for place, values in enumerate([*expected, *expected]):
        low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        shift = 10 if place in (4, 5, 6) else 0  # Recall@1
        mean = 100 * np.mean(values) + shift
        assert htl.cells[place].text == f"{mean:.2f} ± {100 * (high - low) / 2:.2f}"
    (control,) = section.controls
    assert texts(control)[:4] == ["5.00", "5.00", "5.00", "0.00"]


@pytest.mark.usefixtures("ladder")
def test_the_page_says_what_changes_and_what_does_not(sections, page):
    (section,) = sections("Taxonomy ladder")
    assert (
        "The same on each rung: the test classes, the number of training classes" in section.facts
    )
    for sentence in (
        "class unseen (birds_class): no test class trains, but other classes of its genus do.",
        "genus unseen (birds_level_1): no class of its genus trains, but other classes of its "
        "family do.",
        "family unseen (birds_level_2): no class of its family trains.",
    ):
        assert sentence in section.facts
    assert section.notes[-1].startswith("A rung is one draw of classes")
    assert section.where == Where("", "tiny", "zero_shot")
    assert [of.dataset for of in section.column_where[:4]] == [
        *(f"birds_{rung}" for rung in RUNGS),
        "",
    ]
    assert "## Taxonomy ladder: birds · tiny · zero_shot" in markdown.render(page())


def test_a_rung_without_a_score_is_a_hole_and_pairs_need_both_seeds(add, sections):
    for seed, score in enumerate((0.5, 0.6)):
        add("class", "htl", seed, score, levels=["script"])
    add("level_1", "htl", 0, 0.2, levels=["script"])
    add("level_1", "htl", 1, 0.2, levels=["script"], status="diverged")
    add("class", "rll", 0, 0.4, levels=["script"], status="killed")
    add("level_1", "rll", 0, 0.3, levels=["script"])
    (section,) = sections("Taxonomy ladder")
    rows = {row.name: texts(row) for row in section.rows}
    assert rows["rll"][:3] == [HOLE, "30.00", HOLE]
    assert rows["htl"][1:3] == ["20.00", "30.00"]  # of the seed 0 alone
    assert "script unseen (birds_level_1): no class of its script trains." in section.facts


def test_other_recipes_and_steps_are_told(add, sections, results):
    for rung, steps in (("class", 40), ("level_1", 44)):
        recipe = {"lr": float(steps)}
        add(rung, "htl", 0, 0.4, history=[1.0, 0.5], learnt={"step": steps}, recipe=recipe)
    (section,) = sections("Taxonomy ladder")
    assert section.notes[0].startswith("The recipes of the rungs differ too")
    assert section.notes[1].startswith("Training steps: class 40, genus 44.")


def test_one_rung_other_images_and_the_own_split_are_no_ladder(add, results, sections):
    add("class", "htl", 0, 0.5)
    results.add("htl", 0, {"map@r": 0.5}, dataset="own")
    other = {"type": "csv", "facts": {"levels": ["order"]}, "holdout": "level_1"}
    results.add("htl", 0, {"map@r": 0.5}, dataset="others", settings={"dataset": other})
    assert sections("Taxonomy ladder") == []


def test_further_rungs_are_no_further_data_sets_where_losses_are_ranked(add, results, page):
    for rung in RUNGS:
        for place, loss in enumerate(("htl", "rll", "hpl")):
            for seed in range(3):
                add(rung, loss, seed, 0.5 - 0.1 * place + 0.01 * seed)
    assert "data sets" not in json.dumps(page().summary)
    assert "mean rank" not in page().sections[0].columns
    for place, loss in enumerate(("htl", "rll", "hpl")):
        for seed in range(3):
            results.add(loss, seed, {"map@r": 0.5 + 0.1 * place + 0.01 * seed}, dataset="cub")
    assert "Over 2 data sets" in json.dumps(page().summary)
