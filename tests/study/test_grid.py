"""The grid of a plan: its combinations, what it leaves out, and settings that do not fit."""

import copy

import pytest

from dmlbench.planning.pending import find_pending
from dmlbench.study.study import check_study
from dmlbench.utils.errors import StudyError

STUDY = {
    "study": "my_study",
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


@pytest.fixture
def four_cells():
    """A study of two data sets with two backbones."""
    return copy.deepcopy(STUDY)


def runs_without(*rules):
    """The runs of STUDY without those that `rules` exclude."""
    study = STUDY | {"plan": STUDY["plan"] | {"exclude": [*rules]}}
    return check_study(study, "my.yaml").runs


def excluded(*rules):
    """The rows that `rules` exclude from STUDY, as (dataset, backbone, loss)."""
    kept = runs_without(*rules)
    return {
        (run.dataset, run.backbone, run.loss)
        for path, run in runs_without().items()
        if path not in kept
    }


def test_the_grid_has_every_combination_and_each_control_once(letters):
    paths = list(check_study(letters, "my.yaml").runs)
    controls = [f"letters/tiny/control_{name}/seed0" for name in ("random", "untrained", "oracle")]
    trained = [f"letters/tiny/{loss}/seed{k}" for loss in ("softtriple", "st1") for k in (0, 1)]
    assert paths == controls + trained


def test_overrides_hold_for_every_loss_of_their_backbone_and_data_set(changed):
    settings = changed("backbones.tiny.recipe", {"lr": 0.25})
    settings = changed("datasets.letters.recipe", {"epochs": 5}, settings)
    runs = check_study(settings, "my.yaml").runs.values()
    assert {(run.recipe.lr, run.recipe.epochs, run.recipe.batch_size) for run in runs} == {
        (0.25, 5, 80)
    }


def test_the_override_of_a_data_set_counts_more_than_that_of_a_backbone(changed):
    settings = changed("backbones.tiny.recipe", {"lr": 0.25})
    settings = changed("datasets.letters.recipe", {"lr": 0.5}, settings)
    assert {run.recipe.lr for run in check_study(settings, "my.yaml").runs.values()} == {0.5}


def test_batch_norm_is_frozen_by_default_if_the_backbone_is_pretrained(tmp_path, letters, changed):
    (tmp_path / "weights").write_text("x")
    pretrained = changed("backbones.tiny.pretrained", str(tmp_path / "weights"))
    thawed = changed("recipe.freeze_bn", False, pretrained)
    frozen = [
        {run.recipe.freeze_bn for run in check_study(settings, "my.yaml").runs.values()}
        for settings in (letters, pretrained, thawed)
    ]
    assert frozen == [{False}, {True}, {False}]


def test_only_trainings_need_the_images_of_both_data_sets(letters, changed):
    settings = changed("datasets.letters", {"type": "cub200", "test_on": "lfw"})
    study = check_study(settings, "my.yaml")
    trained, control = (
        study.runs[f"letters/tiny/{name}/seed0"] for name in ("softtriple", "control_untrained")
    )
    assert [name.split("-")[0] for name in trained.stores] == ["cub200", "lfw"]
    assert [name.split("-")[0] for name in control.stores] == ["lfw"]
    assert {name.split("-")[0] for name in study.stores} == {"cub200", "lfw"}
    assert {run.tested.dataset for run in study.runs.values()} == {"lfw"}
    plain = check_study(letters, "my.yaml").runs["letters/tiny/softtriple/seed0"]
    assert plain.tested is plain
    assert plain.stores == [plain.store]


def test_a_data_set_without_training_split_may_be_defined_if_it_is_not_selected(changed):
    assert check_study(changed("datasets.faces", {"type": "lfw"}), "my.yaml").runs


def test_a_rule_excludes_what_has_all_its_names():
    assert excluded({"dataset": "letters", "backbone": "big", "loss": "rll"}) == {
        ("letters", "big", "rll")
    }
    assert excluded({"backbone": "big", "loss": "rll"}) == {
        ("letters", "big", "rll"),
        ("omniglot", "big", "rll"),
    }


def test_rules_add_up_and_move_no_key():
    rules = {"dataset": "letters", "loss": "rll"}, {"dataset": "omniglot", "loss": "htl"}
    assert {(dataset, loss) for dataset, _, loss in excluded(*rules)} == {
        ("letters", "rll"),
        ("omniglot", "htl"),
    }
    all_runs = runs_without()
    kept = runs_without(*rules)
    assert all(run.train_key == all_runs[path].train_key for path, run in kept.items())


def test_a_rule_without_a_loss_excludes_the_controls_too():
    names = {"htl", "rll", "control_random", "control_untrained"}
    gone = excluded({"dataset": "omniglot", "backbone": "big"})
    assert gone == {("omniglot", "big", name) for name in names}
    assert {loss for *_, loss in excluded({"loss": "rll"})} == {"rll"}


def test_a_loss_that_does_not_fit_the_recipe_may_be_excluded(four_cells):
    recipe = {"batch_size": 90, "images_per_class": 3}  # htl's 4 x 4 does not divide it
    four_cells["datasets"]["letters"]["recipe"] = recipe
    with pytest.raises(StudyError, match="does not divide"):
        check_study(four_cells, "my.yaml")
    four_cells["plan"]["exclude"] = [{"dataset": "letters", "loss": "htl"}]
    assert check_study(four_cells, "my.yaml").runs


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
        ("rll", r"plan\.exclude\.0: found 'rll', not a mapping\. Allowed: backbone, dataset, loss"),
        ({}, r"plan\.exclude\.0: exclude needs a dataset, a backbone or a loss"),
    ],
)
def test_a_rule_that_matches_nothing_is_refused(rule, message):
    with pytest.raises(StudyError, match=message):
        runs_without(rule)


def test_rules_that_leave_no_loss_are_refused():
    rules = [{"loss": "rll"}, {"dataset": "letters", "loss": "htl"}]
    assert runs_without(*rules)
    others = {"dataset": "omniglot", "backbone": "small"}, {"backbone": "big"}
    with pytest.raises(StudyError, match=r"plan\.exclude: it leaves no loss to run"):
        runs_without(*rules, *others)


def test_a_rule_that_is_listed_twice_is_refused():
    with pytest.raises(StudyError, match="listed twice"):
        runs_without({"loss": "rll"}, {"loss": "rll"})


def test_an_excluded_run_is_not_pending(tmp_path, monkeypatch, four_cells):
    monkeypatch.chdir(tmp_path)
    four_cells["plan"]["exclude"] = [{"dataset": "omniglot"}]
    pending = find_pending(check_study(four_cells, "my.yaml"), tmp_path / "stores")
    assert {path.split("/")[0] for path in pending.train} == {"letters"}
    assert [name.split("-")[0] for name in pending.stores] == ["glyphs"]


@pytest.mark.parametrize(
    ("recipe", "override", "message"),
    [
        ({"optimizer": "sgd", "eps": 0.01}, {}, r"recipe: eps: 0\.01 is not used by .* sgd"),
        ({"optimizer": "adam", "momentum": 0.8}, {}, r"recipe: momentum: 0\.8 .* optimizer: adam"),
        ({"momentum": 0.8}, {}, r"recipe: momentum: 0\.8 is not used by optimizer: adamw"),
        (
            {"sampler": "per_batch", "images_per_class": None},
            {},
            r"recipe: sampler: per_batch is not used with images_per_class: null\. Leave it out",
        ),
        (
            {"sampler": "per_batch"},
            {"images_per_class": None},
            r"datasets\.letters\.recipe: sampler: per_batch .* set it back there to rounds",
        ),
        ({"bn_momentum": 0.5}, {}, r"recipe: bn_momentum: 0\.5 is used only with freeze_bn: false"),
        (
            {"bn_momentum": 0.5, "freeze_bn": False},
            {"freeze_bn": True},
            r"bn_momentum: 0\.5 is used only with .* If an override freezes, set it to null there",
        ),
        (
            {"eps": 0.01},
            {"optimizer": "sgd"},
            r"datasets\.letters\.recipe: eps: 0\.01 .* set it back there to 1e-08",
        ),
        ({"optimizer": "sgd"}, {"eps": 0.01}, r"datasets\.letters\.recipe: eps: 0\.01"),
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(four_cells, recipe, override, message):
    four_cells["recipe"] |= recipe
    four_cells["datasets"]["letters"]["recipe"] = override
    with pytest.raises(StudyError, match=message):
        check_study(four_cells, "my.yaml")


@pytest.mark.parametrize(
    ("recipe", "override"),
    [
        ({"optimizer": "sgd", "momentum": 0.8}, {}),
        ({"optimizer": "rmsprop", "momentum": 0.8, "eps": 0.01}, {}),
        ({"eps": 0.01}, {"optimizer": "sgd", "eps": 1e-8}),
        ({"optimizer": "sgd", "eps": 1e-8}, {}),  # as in the settings that a study was run with
    ],
)
def test_a_setting_that_the_optimizer_uses_or_that_has_its_default_is_accepted(
    four_cells, recipe, override
):
    four_cells["recipe"] |= recipe
    four_cells["datasets"]["letters"]["recipe"] = override
    assert check_study(four_cells, "my.yaml").runs
