"""The remarks of a study change its leaderboard and none of its runs."""

import copy
import json

import pytest

from dmlbench.study import remarks as remarks_module
from dmlbench.study.published import read_published
from dmlbench.study.study import check_study, read_study
from dmlbench.utils.errors import StudyError

STUDY = {
    "study": "my_study",
    "track": "paper",
    "plan": {
        "datasets": ["letters"],
        "backbones": ["small.v2"],
        "losses": ["softtriple", "softtriple_sop", "hpl"],
        "seeds": [0],
    },
    "datasets": {"letters": {"type": "glyphs", "recipe": {"augmentation": {"flip": False}}}},
    "backbones": {"small.v2": {"type": "test_resnet", "dim": 64}},
    "losses": {"softtriple_sop": {"type": "softtriple", "centers_per_class": 2}},
    "recipe": {"batch_size": 80, "lr": 1e-3},
}
REMARK = {"recipe.lr": "from memory of the paper"}


def check(**changes):
    return check_study(copy.deepcopy(STUDY) | changes, "my.yaml")


def keys(study):
    return {path: (run.train_key, run.eval_key) for path, run in study.runs.items()}


@pytest.mark.parametrize(
    "change",
    [
        {"track": "fair"},
        {"unconfirmed": REMARK},
        {"deviations": REMARK},
        {"published": {"softtriple_sop": "softtriple"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_remark_moves_the_key_of_the_leaderboard_and_of_no_run(change):
    before, after = check(), check(**change)
    assert keys(before) == keys(after)
    assert before.leaderboard_key != after.leaderboard_key


def test_only_the_published_numbers_of_its_systems_move_the_key_of_a_leaderboard(monkeypatch):
    rows = read_published()

    def change_numbers(system):
        changed = [row._replace(value=1.0) if row.system == system else row for row in rows]
        monkeypatch.setattr(remarks_module, "read_published", lambda: changed)

    def leaderboard_keys():
        return check().leaderboard_key, check(track="fair").leaderboard_key

    before = leaderboard_keys()
    change_numbers("htl")
    assert leaderboard_keys() == before
    change_numbers("softtriple")
    after = leaderboard_keys()
    assert [new == old for new, old in zip(after, before, strict=True)] == [False, True]


def test_a_loss_belongs_to_the_system_of_its_name_or_to_the_one_that_is_named():
    study = check(published={"softtriple_sop": "softtriple"})
    assert study.remarks.systems == {"softtriple": "softtriple", "softtriple_sop": "softtriple"}
    assert check(published={"softtriple": "htl"}).remarks.systems == {"softtriple": "htl"}
    assert check(track="fair").remarks.systems == {}


def test_a_loss_of_another_type_does_not_belong_to_the_system_of_its_name():
    losses = {"softtriple": {"type": "triplet"}, **STUDY["losses"]}
    assert check(losses=losses).remarks.systems == {}


@pytest.mark.parametrize(
    "path",
    [
        "recipe.lr",
        "losses.softtriple_sop.centers_per_class",
        "backbones.small.v2.dim",
        "datasets.letters.recipe.augmentation.flip",
        "plan.seeds",
    ],
)
def test_a_remark_may_be_about_any_key_that_the_file_sets(path):
    assert check(unconfirmed={path: "ours"}, deviations={path: "ours"}).runs


@pytest.mark.parametrize("field", ["unconfirmed", "deviations"])
@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("recipe.rl", "Did you mean 'recipe.lr'"),
        ("recipe.momentum", ""),  # it has its default, which the file does not set
        ("losses.softtriple_sop.centres_per_class", "Did you mean 'losses.softtriple_sop.centers"),
    ],
)
def test_a_remark_about_a_key_that_the_file_does_not_set_is_refused(field, path, hint):
    with pytest.raises(StudyError) as refused:
        check(**{field: {path: "ours"}})
    assert f"{field}: '{path}' is not set in this study. {hint}".rstrip() in str(refused.value)


@pytest.mark.parametrize("field", ["unconfirmed", "deviations"])
@pytest.mark.parametrize("remark", ["", "  "])
def test_an_empty_remark_is_refused(field, remark):
    with pytest.raises(StudyError, match=rf"{field}: the remark on 'recipe.lr' is empty"):
        check(**{field: {"recipe.lr": remark}})


def test_the_remarks_name_the_settings_of_the_recipe_that_entries_override():
    backbones = {"small.v2": {"type": "test_resnet", "dim": 64, "recipe": {"lr": 1e-4}}}
    assert check(backbones=backbones).remarks.overrides == {
        "datasets.letters": ["augmentation"],
        "backbones.small.v2": ["lr"],
    }


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ({"softriple": "softtriple"}, r"softriple: the study has no such loss\. Did you mean"),
        ({"softtriple_sop": "softriple"}, r"softtriple_sop: no system 'softriple'.* 'softtriple'"),
    ],
)
def test_an_unknown_loss_or_system_is_refused(published, message):
    with pytest.raises(StudyError, match=rf"published\.{message}"):
        check(published=published)


def test_published_numbers_are_refused_in_the_fair_track():
    with pytest.raises(StudyError, match="published: only the paper track"):
        check(track="fair", published={"softtriple_sop": "softtriple"})


def test_the_settings_that_a_study_was_run_with_have_the_same_remarks(tmp_path):
    study = check(unconfirmed=REMARK, published={"softtriple_sop": "softtriple"})
    snapshot = tmp_path / "study.json"
    snapshot.write_text(json.dumps(study.settings.model_dump(mode="json")))
    again = read_study(snapshot)
    assert (again.remarks, again.leaderboard_key) == (study.remarks, study.leaderboard_key)
