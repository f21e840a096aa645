"""What differs between a result file and the plan is said in few words."""

import pytest

from dmlbench.planning.describe_changes import MAX_LENGTH, describe_changes, describe_code

TRAIN, HTL = "dmlbench.training.train", "dmlbench.losses.htl"


def describe_settings(before, now):
    return describe_changes(before, now, {}, {})


def test_a_setting_is_named_by_its_key_path_with_both_values():
    before, now = {"recipe": {"lr": 0.003, "epochs": 8}}, {"recipe": {"lr": 0.001, "epochs": 8}}
    assert describe_settings(before, now) == "recipe.lr: 0.003 -> 0.001"


def test_a_new_and_a_removed_setting_have_no_other_value():
    assert describe_settings({"a": 1}, {"b": None}) == "a: 1 -> (none); b: (none) -> null"


def test_equal_settings_have_no_changes():
    assert describe_settings({"a": [1, 2], "b": {}}, {"a": (1, 2), "b": {}}) == ""


def test_the_options_of_another_type_are_left_out():
    before = {"loss": {"type": "htl", "sub": {"anchors": 3}}, "losses": 1}
    now = {"loss": {"type": "rll", "margin": 0.4}, "losses": 2}
    assert describe_settings(before, now) == "loss.type: htl -> rll; losses: 1 -> 2"


def test_a_long_value_is_cut():
    text = describe_settings({"rows": "x" * 100}, {"rows": "y"})
    assert text == f"rows: {'x' * (MAX_LENGTH - 3)}... -> y"


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        ({HTL: "a"}, {HTL: "a"}, ""),
        ({HTL: "a"}, {HTL: "b"}, "code of dmlbench/losses/htl.py"),
        ({}, {HTL: "a"}, "code of dmlbench/losses/htl.py"),
        ({"dmlbench.gone": "a"}, {}, "code of dmlbench.gone"),
        (
            {TRAIN: "a", HTL: "a"},
            {TRAIN: "b", HTL: "b"},
            "code of dmlbench/losses/htl.py, dmlbench/training/train.py",
        ),
    ],
)
def test_each_module_that_changed_is_named_by_its_file(before, now, text):
    assert describe_code(before, now) == text


def test_a_module_that_only_moved_did_not_change():
    assert describe_code({"dmlbench.htl": "a", TRAIN: "a"}, {HTL: "a", TRAIN: "b"}) == (
        "code of dmlbench/training/train.py"
    )


def test_a_module_that_moved_and_changed_is_named_with_both_places():
    text = "code of dmlbench.htl, dmlbench/losses/htl.py"
    assert describe_code({"dmlbench.htl": "a"}, {HTL: "b"}) == text


def test_of_modules_with_the_same_short_name_only_those_that_changed_are_named():
    training, evaluation = "dmlbench.training.job", "dmlbench.evaluation.job"
    before = {training: "a", evaluation: "b"}
    now = {training: "a", evaluation: "c"}
    assert describe_code(before, now) == "code of dmlbench/evaluation/job.py"


def test_settings_come_before_code():
    text = describe_changes({"a": 1}, {"a": 2}, {HTL: "a"}, {HTL: "b"})
    assert text == "a: 1 -> 2; code of dmlbench/losses/htl.py"


def test_a_result_file_without_digests_says_nothing_about_its_code():
    assert describe_changes({"a": 1}, {"a": 1}, None, {HTL: "b"}) == ""
