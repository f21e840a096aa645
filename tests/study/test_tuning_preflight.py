"""What would make every trial fail is refused before any job, with the key and the fix."""

import pytest

pytestmark = pytest.mark.usefixtures("in_this_process")
TEST = (("x", "test", "", 2), ("y", "test", "", 3))


@pytest.fixture
def tuned(own):
    """A tuned study of one loss on a CSV."""
    own["tuning"] = {"trials": 2, "folds": 2}
    return own


def training(count, split="train", images=4, first=0):
    return [(f"{split}{number}", split, "", images) for number in range(first, first + count)]


def test_a_tuned_study_that_fits_is_accepted(tuned, write_csv, problems):
    write_csv(*training(4), *TEST)
    assert problems(tuned) == []


def test_too_few_classes_for_the_folds_are_refused(tuned, write_csv, problems):
    write_csv(*training(5), *TEST)
    tuned["tuning"]["folds"] = 3
    assert problems(tuned) == [
        "tuning.folds: 3 folds of the 5 classes that own trains on, and each fold needs 2 classes "
        "or more. Take 2 or fewer."
    ]
    write_csv(*training(3), *TEST)
    assert problems(tuned)[0].endswith("needs 2 classes or more. Give it more classes.")


def test_a_batch_with_more_classes_than_a_fold_trains_on_is_refused(tuned, write_csv, problems):
    write_csv(*training(5), *TEST)
    tuned["recipe"] = {"batch_size": 12, "images_per_class": 4}
    assert problems(tuned) == [  # the larger fold of 5 holds 3 out
        "recipe.batch_size: 12 / images_per_class 4 = 3 classes a batch, and a fold of own trains "
        "on 2. Take batch_size: 8 or less, or more tuning.folds."
    ]
    tuned["tuning"]["folds"] = 2
    write_csv(*training(6), *TEST)
    assert problems(tuned) == []


def test_the_blocks_of_the_reality_check_need_classes_too(tuned, write_csv, problems):
    del tuned["tuning"]
    tuned["protocol"] = "reality_check"
    tuned["recipe"] |= {"batch_size": 16}
    write_csv(*training(7), *TEST)
    assert problems(tuned) == [
        "protocol: reality_check: 4 folds of the 7 classes that own trains on, and each fold needs "
        "2 classes or more. Give it more classes."
    ]
    write_csv(*training(8), *TEST)
    assert problems(tuned) == []
    tuned["recipe"]["batch_size"] = 28
    assert problems(tuned) == [  # no setting cuts other blocks
        "recipe.batch_size: 28 / images_per_class 4 = 7 classes a batch, and a fold of own trains "
        "on 6. Take batch_size: 24 or less."
    ]


def test_the_models_of_the_reality_check_ask_their_losses(own, write_csv, problems):
    write_csv(*training(9), *TEST)
    own["protocol"] = "reality_check"
    own["recipe"] |= {"batch_size": 16}
    own["plan"]["losses"] = ["hpl"]
    own["losses"] = {"hpl": {"hierarchy": "kmeans", "coarse_proxies": 8}}
    assert problems(own) == [
        "losses.hpl: a model that trains on three of the four blocks of own: coarse_proxies 8 is "
        "more than 6 classes. See protocol: reality_check."
    ]
    own["losses"]["hpl"]["coarse_proxies"] = 6
    assert problems(own) == []


def test_a_batch_larger_than_a_fold_is_refused(tuned, write_csv, problems):
    write_csv(*training(4), *TEST)
    tuned["recipe"] = {"batch_size": 10, "images_per_class": None}
    assert problems(tuned) == [
        "recipe.batch_size: 10 is more than the 8 images that a fold of own trains on. Take 8 or "
        "less, or more tuning.folds."
    ]


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (0, "published, and own has no validation part. Take random or contiguous."),
        (1, "published, and of own 1 class of 5 is held out. Both parts need 2 classes or more."),
        (2, None),
    ],
)
def test_a_published_part_must_be_there_and_have_classes(
    tuned, write_csv, problems, held_out, message
):
    write_csv(*training(4), *training(held_out, "validation"), *TEST)
    tuned["tuning"] = {"trials": 2, "classes": "published"}
    assert problems(tuned) == ([f"tuning.classes: {message}"] if message else [])


def test_a_loss_that_needs_more_classes_than_a_fold_has_is_refused(tuned, write_csv, problems):
    write_csv(*training(6), *TEST)
    tuned["plan"]["losses"] = ["hpl"]
    tuned["losses"] = {"hpl": {"hierarchy": "kmeans", "coarse_proxies": 4}}
    (line,) = problems(tuned)
    assert line.startswith("losses.hpl: trial 0 of its tuning, with ")
    assert "on a fold of own: coarse_proxies 4 is more than 3 classes" in line


def test_searched_options_that_do_not_fit_the_others_are_refused(tuned, write_csv, problems):
    write_csv(*training(4), *TEST)
    tuned["plan"]["losses"] = ["rll"]
    tuned["losses"] = {"rll": {"alpha": 0.5}}
    tuned["tuning"]["trials"] = 9
    (line,) = problems(tuned)
    assert "losses.rll: trial" in line
    assert "is above alpha 0.5" in line
    tuned["tuning"]["spaces"] = {"rll": {"margin": {"low": 0.1, "high": 0.4}}}
    assert problems(tuned) == []


def test_equal_options_are_tried_once_with_the_fewest_classes(letters, problems, monkeypatch):
    asked = []

    def find_problems(name, path, questions, facts):
        asked.extend(questions)
        return [""] * len(questions)

    monkeypatch.setattr("dmlbench.losses._trial.find_problems", find_problems)
    letters["tuning"] = {"trials": 3}
    letters["plan"] |= {"datasets": ["letters", "cub200"], "losses": ["st1"], "seeds": [0, 1]}
    assert problems(letters) == []
    tried = [question for question in asked if question.type == "softtriple"]
    options = {str(question.options) for question in tried}
    assert len(options) == 3
    cells, trials = tried[:2], tried[2:]
    assert len(trials) == 3
    assert {question.classes for question in trials} == {75}  # of the 100 of cub200
    assert {question.classes for question in cells} >= {100}
