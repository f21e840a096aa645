"""What a study says of itself beside its results."""

import copy
import json

import pytest

from dmlbench import published, study
from dmlbench.problems import StudyError

STUDY = {
    "study": "made",
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


def check(**changes):
    return study.check(copy.deepcopy(STUDY) | changes, "my.yaml")


def keys(found):
    return {path: (run.train_key, run.eval_key) for path, run in found.runs.items()}


REMARK = {"recipe.lr": "from memory of the paper"}
CHANGES = [
    {"track": "fair"},
    {"unconfirmed": REMARK},
    {"deviations": REMARK},
    {"published": {"softtriple_sop": "softtriple"}},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_a_remark_moves_the_leaderboard_s_key_and_no_run_s(change):
    before, after = check(), check(**change)
    assert keys(before) == keys(after)
    assert before.leaderboard_key != after.leaderboard_key


def test_the_leaderboard_s_key_follows_the_published_numbers_it_shows(monkeypatch):
    def found():
        return check().leaderboard_key, check(track="fair").leaderboard_key

    def other(system):
        changed = [row._replace(value=1.0) if row.system == system else row for row in rows]
        monkeypatch.setattr(published, "read", lambda: changed)

    rows, before = published.read(), found()
    other("htl")
    assert found() == before
    other("softtriple")
    assert [new == old for new, old in zip(found(), before, strict=True)] == [False, True]


def test_a_loss_is_the_system_of_its_own_name_or_the_one_that_is_named():
    found = check(published={"softtriple_sop": "softtriple"})
    assert found.remarks.systems == {"softtriple": "softtriple", "softtriple_sop": "softtriple"}
    assert check(published={"softtriple": "htl"}).remarks.systems == {"softtriple": "htl"}
    assert check(track="fair").remarks.systems == {}


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
def test_a_remark_is_on_what_the_file_sets(path):
    assert check(unconfirmed={path: "ours"}, deviations={path: "ours"}).runs


@pytest.mark.parametrize("field", ["unconfirmed", "deviations"])
@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("recipe.rl", "Did you mean 'recipe.lr'"),
        ("recipe.momentum", ""),  # a default, which the file does not say
        ("losses.softtriple_sop.centres_per_class", "Did you mean 'losses.softtriple_sop.centers"),
    ],
)
def test_a_remark_on_what_the_file_does_not_set_is_refused(field, path, hint):
    with pytest.raises(StudyError) as refused:
        check(**{field: {path: "ours"}})
    assert f"{field}: {path} is not set in this study. {hint}".rstrip() in str(refused.value)


@pytest.mark.parametrize("field", ["unconfirmed", "deviations"])
@pytest.mark.parametrize("remark", ["", "  "])
def test_a_remark_that_says_nothing_is_refused(field, remark):
    with pytest.raises(StudyError, match=rf"{field}\.recipe\.lr: it is empty"):
        check(**{field: {"recipe.lr": remark}})


def test_what_entries_have_otherwise_than_the_recipe_is_known():
    backbones = {"small.v2": {"type": "test_resnet", "dim": 64, "recipe": {"lr": 1e-4}}}
    assert check(backbones=backbones).remarks.overrides == {
        "datasets.letters": ["augmentation"],
        "backbones.small.v2": ["lr"],
    }


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"softriple": "softtriple"}, r"softriple: the study has no such loss\. Did you mean"),
        ({"softtriple_sop": "softriple"}, r"softtriple_sop: no system 'softriple'.* 'softtriple'"),
    ],
)
def test_a_loss_or_a_system_that_there_is_not_is_refused(named, message):
    with pytest.raises(StudyError, match=rf"published\.{message}"):
        check(published=named)


def test_the_settings_as_they_were_run_are_a_study_again(tmp_path):
    found = check(unconfirmed=REMARK, published={"softtriple_sop": "softtriple"})
    snapshot = tmp_path / "study.json"
    snapshot.write_text(json.dumps(found.settings.model_dump(mode="json")))
    again = study.read(snapshot)
    assert (again.remarks, again.leaderboard_key) == (found.remarks, found.leaderboard_key)


def test_a_loss_of_another_type_is_not_the_system_of_its_name():
    assert (
        check(losses={"softtriple": {"type": "triplet"}, **STUDY["losses"]}).remarks.systems == {}
    )


def test_the_fair_track_is_not_compared_with_what_is_published():
    with pytest.raises(StudyError, match="published: only the paper track"):
        check(track="fair", published={"softtriple_sop": "softtriple"})
