"""A wrong tuning is refused before any job, with the key, what was found, what is allowed."""

import pytest

from dmlbench.study.study import check_study
from dmlbench.utils.errors import StudyError

WRONG = {
    "unknown key": ({"trial": 3}, r"tuning\.trial: unknown key\. Did you mean 'trials'\?"),
    "no trials": (
        {"trials": 0},
        r"tuning\.trials: found 0\. Allowed: a whole number of at least 1",
    ),
    "no mapping": (16, r"tuning: found 16\. Allowed: a mapping or null\."),
    "one fold": ({"folds": 1}, r"tuning\.folds: found 1\. Allowed: a whole number of at least 2"),
    "more folds than there are": (
        {"folds": 3, "use_folds": 4},
        r"tuning: use_folds: 4 is more than folds: 3\.",
    ),
    "folds of a published part": (
        {"classes": "published", "folds": 3},
        r"tuning: folds: 3 is not used with classes: published, which has one fold\. Leave it out",
    ),
    "metric": (
        {"metric": "recall@2"},
        r"tuning\.metric: found 'recall@2'\. Allowed: map@r, recall@1 or r_precision\.",
    ),
    "interval": (
        {"lr_factor": [2, 1]},
        r"tuning: lr_factor: \[2, 1\] is not an interval, low before high\.",
    ),
    "learning rate": (
        {"lr_factor": [1, 1000]},
        r"tuning\.lr_factor: 1000 x lr 100: recipe\.lr: found 100000\.0\. Allowed: a number above 0"
        r" and at most 1,000\.",
    ),
    "learning rate of the head": (
        {"head_lr_factor": [1, 1000]},
        r"tuning\.head_lr_factor: 1000 x head_lr_factor 20: recipe\.head_lr_factor: found 20000\.0",
    ),
    "unknown loss": (
        {"spaces": {"softripple": {}}},
        r"tuning\.spaces\.softripple: the study has no such loss\. Did you mean 'softtriple'\?",
    ),
    "unknown option": (
        {"spaces": {"softtriple": {"gama": {"low": 1, "high": 2}}}},
        r"tuning\.spaces\.softtriple\.gama: softtriple has no such option\. Did you mean 'gamma'\?",
    ),
    "no range": (
        {"spaces": {"softtriple": {"gamma": 3}}},
        r"tuning\.spaces\.softtriple\.gamma: found 3, not a mapping\. Allowed: high, log, low\.",
    ),
    "half a range": (
        {"spaces": {"softtriple": {"gamma": {"low": 1}}}},
        r"tuning\.spaces\.softtriple\.gamma\.high: is missing\.",
    ),
    "turned round": (
        {"spaces": {"softtriple": {"gamma": {"low": 2, "high": 1}}}},
        r"tuning\.spaces\.softtriple\.gamma: low 2 is above high 1\.",
    ),
    "logarithm of 0": (
        {"spaces": {"softtriple": {"gamma": {"low": 0, "high": 1, "log": True}}}},
        r"tuning\.spaces\.softtriple\.gamma: low 0 must be above 0, since log is true\.",
    ),
    "below the bound": (
        {"spaces": {"softtriple": {"tau": {"low": -1, "high": 1}}}},
        r"tuning\.spaces\.softtriple\.tau: low: found -1\.0\. Allowed: a number of at least 0 and",
    ),
    "above the bound": (
        {"spaces": {"softtriple": {"centers_per_class": {"low": 1, "high": 2000}}}},
        r"softtriple\.centers_per_class: high: found 2000\. Allowed: a whole number of at least 1",
    ),
    "no whole number": (
        {"spaces": {"softtriple": {"centers_per_class": {"low": 1.5, "high": 3}}}},
        r"tuning\.spaces\.softtriple\.centers_per_class: low: found 1\.5\. Allowed: a whole number",
    ),
    "no number": (
        {"spaces": {"htl": {"tree_linkage": {"low": 1, "high": 2}}}},
        r"tuning\.spaces\.htl\.tree_linkage: it is no number, so it cannot be searched\.",
    ),
    "divisor": (
        {"spaces": {"rll": {"blocks": {"low": 1, "high": 4}}}},
        r"tuning\.spaces\.rll\.blocks: it must divide other settings, so it cannot be searched\.",
    ),
    "unused": (
        {"spaces": {"margin": {"beta_lr_factor": {"low": 1, "high": 4}}}},
        r"tuning\.spaces\.margin\.beta_lr_factor: it is only used with learn_beta: True\. Leave it",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_tuning_is_said_with_its_key(tiny, case):
    tuning, message = WRONG[case]
    tiny["plan"]["losses"] = ["softtriple", "htl", "rll", "margin"]
    tiny["losses"] = {"margin": {"learn_beta": False}}
    tiny["recipe"] |= {"lr": 100 if case == "learning rate" else 0.01, "head_lr_factor": 20}
    with pytest.raises(StudyError, match=message):
        check_study(tiny | {"tuning": tuning}, "tiny")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"power": {"low": 1.0, "high": 3.0}}, None),
        ({"powers": {"low": 1.0, "high": 3.0}}, r"SEARCH_SPACE: powers: .* Did you mean 'power'\?"),
        ({"power": [1.0, 3.0]}, r"losses\.own: its SEARCH_SPACE: power: found \[1\.0, 3\.0\], not"),
        ([1], r"losses\.own: its SEARCH_SPACE: found \[1\], not a mapping of options\."),
    ],
)
def test_the_space_of_a_user_s_loss_is_read_from_its_file_and_checked(
    tiny, tmp_path, monkeypatch, space, message
):
    name = f"own_space_{len(str(space))}"
    (tmp_path / f"{name}.py").write_text(f"SEARCH_SPACE = {space}\n\n\nclass Mine:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    options = {"power": ["float", 2.0]}  # importing it would take a process of its own
    monkeypatch.setattr("dmlbench.study.loss_options.own_loss", lambda _: options)
    tiny["plan"]["losses"] = ["own"]
    tiny["losses"] = {"own": {"type": f"{name}.Mine"}}
    if message:
        with pytest.raises(StudyError, match=message):
            check_study(tiny | {"tuning": {}}, "tiny")
        return
    study = check_study(tiny | {"tuning": {}}, "tiny")
    assert [*study.trials["letters/tiny/own/trial1"].options] == ["power", "recipe.lr_factor"]
