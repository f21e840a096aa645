import pytest

from dmlbench.leaderboard import html, markdown
from dmlbench.leaderboard.content import HOLE
from dmlbench.study.result_files import StudyFiles

SPACE = {"alpha": [1.0, 9.0, "linear"], "recipe.lr_factor": [0.25, 4.0, "log"]}
FIRST = {"alpha": 2.0, "recipe.lr_factor": 1.0}
OTHER = {"alpha": 3.25, "recipe.lr_factor": 0.51234567}
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def add(results):
    """Add a tuned loss with a run; its trials have these scores, None if one diverged."""

    def added(loss, scores, space=SPACE, options=None, **tuning):
        options = options or [FIRST, *[OTHER] * (len(scores) - 1)]
        tuned = results.tune(loss, scores, space, options, **tuning)
        results.add(loss, 0, {"map@r": 0.5}, **tuned)

    return added


def rows(section):
    """Loss -> column -> text."""
    return {
        row.name: dict(zip(section.columns, [cell.text for cell in row.cells], strict=True))
        for row in section.rows
    }


def test_each_tuned_loss_is_a_row_with_what_was_chosen_the_best_first(add, sections):
    add("htl", [0.2, 0.4, None])
    add("rll", [0.5, 0.3])
    (section,) = sections("Tuning")
    assert section.title == "Tuning: letters · tiny"
    assert [row.name for row in section.rows] == ["rll", "htl"]
    assert rows(section) == {
        "rll": {
            "validation": "50.00", "first": "50.00", "epochs": "3",
            "chosen": "lr_factor 1, alpha 2", "trial": "0", "trials": "2 ok", "steps": "80",
            "time": "1 min 00 s",
        },
        "htl": {
            "validation": "40.00", "first": "20.00", "epochs": "3",
            "chosen": "lr_factor 0.5123, alpha 3.25", "trial": "1", "trials": "2 ok, 1 diverged",
            "steps": "90", "time": "1 min 30 s",
        },
    }  # fmt: skip
    assert "they are no test scores" in section.facts
    assert "mean MAP@R over the folds" in section.facts


def test_a_loss_whose_trials_all_failed_says_so(add, sections):
    add("htl", [0.2])
    add("rll", [None, None])
    (section,) = sections("Tuning")
    row = rows(section)["rll"]
    assert (row["validation"], row["chosen"], row["epochs"]) == (HOLE, HOLE, HOLE)
    assert row["trials"] == "2 diverged"
    assert section.failures == [("rll", "nothing chosen", "every trial")]


def test_a_choice_that_is_missing_is_a_row_of_holes(add, sections, results):
    add("htl", [0.2])
    results.files.chosen("letters/tiny/htl").unlink()
    (section,) = sections("Tuning")
    assert set(rows(section)["htl"].values()) == {HOLE}


def test_a_loss_without_search_space_has_the_settings_of_the_study(add, sections):
    add("htl", [0.2], space={}, options=[{}])
    (section,) = sections("Tuning")
    assert rows(section)["htl"]["chosen"] == "the study's settings"


def test_the_head_says_how_the_losses_were_tuned_and_what_it_cost(add, page):
    add("htl", [0.2, 0.4], use_folds=2, every=2)
    assert page().head["Tuning"] == (
        "2 trials for each loss (the first with the settings of the study, the others Sobol points "
        "of its search space), validated on 2 of 4 folds of the training classes (drawn at random "
        "within each super-class) after every 2 epochs, chosen by mean MAP@R. Budget: 80 steps "
        "trained for each loss. Final runs train on all training classes for the chosen number of "
        "epochs"
    )
    add("rll", [0.2, 0.4, None], use_folds=2, every=2)
    assert page().head["Tuning"].startswith("2 to 3 trials for each loss")
    assert "Budget: 80 to 90 steps" in page().head["Tuning"]


@pytest.mark.parametrize(
    ("tuning", "text"),
    [
        ({"classes": "contiguous"}, "on 4 folds of the training classes (contiguous blocks of cla"),
        ({"classes": "published"}, "validated on the validation part of the data set after each"),
        ({"metric": "recall@1"}, "after each epoch, chosen by mean Recall@1."),
    ],
)
def test_the_head_names_the_folds_and_the_metric(add, page, tuning, text):
    add("htl", [0.2], **tuning)
    assert text in page().head["Tuning"]


def test_an_untuned_study_has_no_section_and_says_so(results, page, sections):
    results.add("htl", 0, {"map@r": 0.5})
    assert sections("Tuning") == []
    assert page().head["Tuning"].startswith("none: each loss has its defaults")


def test_hostile_names_are_text_in_the_tables_of_tuning_and_audit(add, page, results):
    space = {HOSTILE: [1.0, 9.0, "linear"]}
    for loss, scores in ((HOSTILE, [0.2, 0.4]), ("rll", [0.3])):
        add(loss, scores, space, [{HOSTILE: 1.0}] * len(scores))
    text = html.render(page(), [])
    assert "<img" not in text
    assert "&lt;img src=x onerror=alert(1)&gt; 1<" in text  # what was chosen
    assert "▲ trials: more than 1: &lt;img src=x onerror=alert(1)&gt; (2)." in text
    assert "| \\<img src=x onerror=alert(1)\\> |" in markdown.render(page())


def test_the_choices_of_a_study_are_read_from_its_folder(add, results):
    add("htl", [0.2])
    assert results.files.chosen("letters/tiny/htl").is_relative_to(results.folder)
    assert isinstance(results.files, StudyFiles)
