"""The pages of pictures are drawn if they are asked for, and again if what they show changed."""

import shutil

import pytest

from dmlbench.planning.pending import find_pending
from dmlbench.planning.reasons import Reason
from dmlbench.study.study import check_study

PATH = "letters/tiny/proxy_anchor/seed0"
GROUP = "letters/tiny"


@pytest.fixture
def pictured(tiny, finish):
    tiny["report"] = {"galleries": True}
    study = check_study(tiny, "tiny")
    finish(study)
    return study


def counts(study, stores):
    return find_pending(study, stores).counts


def test_nobody_draws_what_is_not_asked_for(finished, stores):
    assert counts(finished, stores) == {}


def test_they_are_drawn_once(pictured, stores):
    assert counts(pictured, stores) == {}


def test_a_study_that_asks_for_them_later_draws_them(finished, tiny, stores):
    tiny["report"] = {"maps": "pca"}
    study = check_study(tiny, "tiny")
    wanted = {"draw_pictures": 1, "build_leaderboard": 1, "verdict": 1}
    assert counts(study, stores) == wanted  # the leaderboard gets links


def test_another_kind_of_map_draws_again_and_leaves_the_leaderboard(pictured, tiny, stores):
    tiny["report"] = {"galleries": True, "maps": "tsne"}
    study = check_study(tiny, "tiny")
    assert counts(study, stores) == {"draw_pictures": 1, "verdict": 1}
    assert find_pending(study, stores).galleries == {
        GROUP: Reason("its runs, their results, `report` or its templates changed")
    }


def test_a_result_that_changed_draws_again(pictured, stores, edit_result):
    edit_result(pictured.files.run(PATH).metrics, metrics=[])
    assert find_pending(pictured, stores).galleries == {GROUP: Reason("results changed")}


def test_a_training_is_followed_by_its_pictures(pictured, stores):
    pictured.files.run(PATH).metrics.unlink()
    pending = find_pending(pictured, stores)
    assert pending.galleries.keys() == {GROUP}
    assert pending.evaluate.keys() == {PATH}


def test_a_page_that_was_removed_is_drawn_again(pictured, stores):
    pictured.files.gallery(GROUP).differences.unlink()
    pending = find_pending(pictured, stores)
    assert pending.galleries == {GROUP: Reason("missing or damaged: tiny.html")}
    assert pending.verdict


def test_embeddings_that_were_removed_are_no_reason_to_train(pictured, stores):
    for path in pictured.runs:
        pictured.files.run(path).embeddings.unlink()
    pictured.files.gallery(GROUP).made_of.unlink()
    assert counts(pictured, stores) == {"draw_pictures": 1, "verdict": 1}


def test_they_need_the_packed_images(pictured, stores):
    shutil.rmtree(stores)
    assert counts(pictured, stores) == {}
    pictured.files.gallery(GROUP).made_of.unlink()
    assert counts(pictured, stores) == {"pack_store": 1, "draw_pictures": 1, "verdict": 1}
