"""A plan's grid: combinations that it leaves out, settings that do not go together."""

import pytest

from dmlbench import study
from dmlbench.due import due
from dmlbench.problems import StudyError

STUDY = {
    "study": "made",
    "plan": {
        "datasets": ["letters", "omniglot"],
        "backbones": ["small", "big"],
        "losses": ["htl", "rll"],
        "seeds": [0, 1],
        "controls": ["random", "untrained"],
    },
    "datasets": {"letters": {"type": "glyphs"}},
    "backbones": {"small": {"type": "test_resnet"}, "big": {"type": "test_resnet", "dim": 1536}},
    "recipe": {"batch_size": 80},
    "tracking": False,
}


def runs(*exclude, **plan):
    made = STUDY | {"plan": STUDY["plan"] | plan | {"exclude": [*exclude]}}
    return study.check(made, "my.yaml").runs


def left_out(*exclude):
    """The runs that are left out, each as (dataset, backbone, loss)."""
    kept = runs(*exclude)
    return {(run.dataset, run.backbone, run.loss) for path, run in runs().items()
            if path not in kept}  # fmt: skip


def test_a_rule_leaves_out_what_has_all_its_names():
    assert left_out({"dataset": "letters", "backbone": "big", "loss": "rll"}) == {
        ("letters", "big", "rll")
    }
    assert left_out({"backbone": "big", "loss": "rll"}) == {
        ("letters", "big", "rll"),
        ("omniglot", "big", "rll"),
    }


def test_rules_add_up_and_no_other_run_s_key_moves():
    rules = {"dataset": "letters", "loss": "rll"}, {"dataset": "omniglot", "loss": "htl"}
    assert {(data, loss) for data, _, loss in left_out(*rules)} == {
        ("letters", "rll"),
        ("omniglot", "htl"),
    }
    all_runs = runs()
    assert all(run.train_key == all_runs[path].train_key for path, run in runs(*rules).items())


def test_controls_go_with_a_backbone_that_is_left_out_and_stay_with_a_loss_that_is():
    gone = left_out({"dataset": "omniglot", "backbone": "big"})
    names = {"htl", "rll", "control_random", "control_untrained"}
    assert gone == {("omniglot", "big", name) for name in names}
    assert {loss for *_, loss in left_out({"loss": "rll"})} == {"rll"}


def test_a_loss_that_does_not_fit_the_recipe_is_no_problem_where_it_is_left_out():
    recipe = {"batch_size": 90, "images_per_class": 3}  # htl's 4 x 4 does not divide it
    override = {"letters": {"type": "glyphs", "recipe": recipe}}
    with pytest.raises(StudyError, match="does not divide"):
        study.check(STUDY | {"datasets": override}, "my.yaml")
    plan = STUDY["plan"] | {"exclude": [{"dataset": "letters", "loss": "htl"}]}
    assert study.check(STUDY | {"datasets": override, "plan": plan}, "my.yaml").runs


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"loss": "rrl"}, r"plan\.exclude\.0\.loss: 'rrl' is not in plan\.losses\. Did you mean"),
        ({"dataset": "lettres"}, r"plan\.exclude\.0\.dataset: 'lettres' is not in plan\.datasets"),
        ({"backbone": "control_random"}, r"'control_random' is not in plan\.backbones"),
        (
            {"datasets": "letters"},
            r"0\.datasets: unknown key\. Did you mean 'dataset'\? Allowed: backbone, dataset, loss",
        ),
        ("rll", r"plan\.exclude: found \['rll'\], not a list as \[{dataset: \.\.\., loss: "),
        ({}, r"plan\.exclude\.0: exclude needs a dataset, a backbone or a loss"),
    ],
)
def test_a_rule_that_matches_nothing_is_refused(rule, message):
    with pytest.raises(StudyError, match=message):
        runs(rule)


def test_rules_that_leave_no_loss_are_refused():
    rules = [{"loss": "rll"}, {"dataset": "letters", "loss": "htl"}]
    assert runs(*rules)
    with pytest.raises(StudyError, match=r"plan\.exclude: it leaves no loss to run"):
        runs(*rules, {"dataset": "omniglot", "backbone": "small"}, {"backbone": "big"})


def test_a_rule_twice_is_refused():
    with pytest.raises(StudyError, match="stands there twice"):
        runs({"loss": "rll"}, {"loss": "rll"})


def test_what_is_left_out_is_no_job_that_is_due(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = STUDY["plan"] | {"exclude": [{"dataset": "omniglot"}]}
    found = due(study.check(STUDY | {"plan": plan}, "my.yaml"), tmp_path / "stores")
    assert {path.split("/")[0] for path in found.train} == {"letters"}
    assert [name.split("-")[0] for name in found.store] == ["glyphs"]


@pytest.mark.parametrize(
    ("recipe", "override", "message"),
    [
        ({"optimizer": "sgd", "eps": 0.01}, {}, r"recipe: eps: 0\.01 is not used by .* sgd"),
        ({"optimizer": "adam", "momentum": 0.8}, {}, r"recipe: momentum: 0\.8 .* optimizer: adam"),
        ({"momentum": 0.8}, {}, r"recipe: momentum: 0\.8 is not used by optimizer: adamw"),
        (
            {"eps": 0.01},
            {"optimizer": "sgd"},
            r"datasets\.letters\.recipe: eps: 0\.01 .* set it back there to 1e-08",
        ),
        ({"optimizer": "sgd"}, {"eps": 0.01}, r"datasets\.letters\.recipe: eps: 0\.01"),
    ],
)
def test_a_setting_that_the_optimiser_would_ignore_is_refused(recipe, override, message):
    letters = {"letters": {"type": "glyphs", "recipe": override}}
    with pytest.raises(StudyError, match=message):
        study.check(STUDY | {"recipe": STUDY["recipe"] | recipe, "datasets": letters}, "my.yaml")


@pytest.mark.parametrize(
    ("recipe", "override"),
    [
        ({"optimizer": "sgd", "momentum": 0.8}, {}),
        ({"eps": 0.01}, {"optimizer": "sgd", "eps": 1e-8}),
        ({"optimizer": "sgd", "eps": 1e-8}, {}),  # as a study that is read again has it
    ],
)
def test_a_setting_of_the_optimiser_or_at_its_default_is_none_to_refuse(recipe, override):
    letters = {"letters": {"type": "glyphs", "recipe": override}}
    changed = {"recipe": STUDY["recipe"] | recipe, "datasets": letters}
    assert study.check(STUDY | changed, "my.yaml").runs
