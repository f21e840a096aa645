"""Trials are points of a Sobol sequence in the space of a loss, and never change."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import qmc

from dmlbench.losses import list_losses
from dmlbench.study.loss_options import options_model
from dmlbench.study.search_space import Dimension, search_points, search_space, sobol_points
from dmlbench.study.study import check_study


@pytest.mark.parametrize("count", [0, 1, 2, 3, 15, 16, 17])
def test_the_points_are_scipy_s_and_more_of_them_begin_with_the_same(count):
    points = sobol_points(4, seed=7, count=count)
    reference = qmc.Sobol(4, scramble=True, rng=7)
    assert points.shape == (count, 4)
    assert np.array_equal(points, reference.random_base2(5)[:count])
    one_by_one = qmc.Sobol(4, scramble=True, rng=7)
    assert all(np.array_equal(point, one_by_one.random(1)[0]) for point in points)
    assert not np.array_equal(sobol_points(4, seed=8, count=4), sobol_points(4, seed=7, count=4))


@given(
    st.floats(1e-3, 1e3),
    st.floats(1.001, 1e4),
    st.booleans(),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2),
)
def test_a_value_lies_in_its_range_and_grows_with_its_position(low, factor, log, positions):
    dimension = Dimension("scale", low, low * factor, log)
    first, last = sorted(positions)
    assert low <= dimension.value(first) <= dimension.value(last) <= low * factor
    value, position = dimension.value(first), first
    if log:
        expected = math.log(low) + position * math.log(factor)
        assert math.log(value) == pytest.approx(expected, abs=1e-5)
    else:
        assert value == pytest.approx(low + position * low * (factor - 1), rel=1e-5)


@given(st.integers(1, 50), st.integers(1, 50), st.booleans())
def test_each_whole_number_of_a_range_has_a_share_of_the_positions(low, more, log):
    dimension = Dimension("k", low, low + more, log, is_integer=True)
    values = [dimension.value(p / 5000) for p in range(5000)]
    assert {type(value) for value in values} == {int}
    assert {*values} == {*range(low, low + more + 1)}
    if not log:
        counts = np.bincount(values)[low:]
        assert counts.max() - counts.min() <= 2


def study_of(tiny, loss, tuning=None, **options):
    tiny["plan"]["losses"] = [loss]
    tiny["losses"] = {loss: {"type": loss, **options}}
    return check_study(tiny | {"tuning": tuning or {}}, "tiny")


def space_of(tiny, loss, tuning=None, **options):
    study = study_of(tiny, loss, tuning, **options)
    run = study.runs[f"letters/tiny/{loss}/seed0"]
    return {dimension.name: dimension for dimension in search_space(run, run.tuning)}


def test_the_space_has_the_options_of_the_loss_by_name_and_the_factors_of_the_recipe(tiny):
    space = space_of(tiny, "softtriple", {"head_lr_factor": [0.1, 10]})
    own = ["centers_lr_factor", "gamma", "la", "margin", "tau"]
    assert [*space] == [*own, "recipe.lr_factor", "recipe.head_lr_factor"]
    assert space["la"] == Dimension("la", 5.0, 100.0, log=True)
    assert space["margin"] == Dimension("margin", 0.0, 0.5)
    assert space["recipe.lr_factor"] == Dimension("recipe.lr_factor", 0.25, 4.0, log=True)
    assert [*space_of(tiny, "softtriple", {"lr_factor": [1, 1]})] == own


def test_the_study_may_have_another_space_for_a_loss(tiny):
    spaces = {"softtriple": {"centers_per_class": {"low": 1, "high": 4}}}
    space = space_of(tiny, "softtriple", {"spaces": spaces})
    chosen = Dimension("centers_per_class", 1.0, 4.0, is_integer=True)
    assert [*space] == ["centers_per_class", "recipe.lr_factor"]
    assert space["centers_per_class"] == chosen
    assert [*space_of(tiny, "softtriple", {"spaces": {"softtriple": {}}})] == ["recipe.lr_factor"]


def test_an_option_that_the_loss_does_not_use_is_not_searched(tiny):
    assert "beta_lr_factor" not in space_of(tiny, "margin", learn_beta=False)
    assert "beta_lr_factor" in space_of(tiny, "margin", learn_beta=True)


def test_trial_0_has_the_settings_of_the_study_and_the_others_are_points(tiny):
    study = study_of(tiny, "triplet", {"trials": 5, "seed": 3}, margin=0.3)
    trials = study.tuned_cells["letters/tiny/triplet"]
    assert [trial.path for trial in trials] == [f"letters/tiny/triplet/trial{i}" for i in range(5)]
    run = study.runs["letters/tiny/triplet/seed0"]
    assert trials[0].run.loss_options == run.loss_options
    assert trials[0].run.recipe == run.recipe
    assert trials[0].options == {"margin": 0.3, "recipe.lr_factor": 1.0}
    space = search_space(run, run.tuning)
    points = search_points(space, 3, 4)
    assert [trial.options for trial in trials[1:]] == points
    assert len({trial.key for trial in trials}) == 5
    for trial in trials:
        assert trial.run.seed == 3
        assert trial.run.loss_options == run.loss_options | {"margin": trial.options["margin"]}
        lr = run.recipe.lr * trial.options["recipe.lr_factor"]
        assert trial.run.recipe == run.recipe.model_copy(update={"lr": lr})


def test_more_trials_leave_the_earlier_ones_as_they_are(tiny):
    few, many = (study_of(tiny, "htl", {"trials": trials}) for trials in (4, 9))
    assert len(many.trials) == 9
    assert {path: many.trials[path].key for path in few.trials} == {
        path: trial.key for path, trial in few.trials.items()
    }
    assert [run.train_key for run in few.runs.values()] == [
        run.train_key for run in many.runs.values()
    ]


def test_a_loss_without_a_space_has_one_trial(tiny):
    study = study_of(tiny, "pml.CircleLoss", {"lr_factor": [1, 1]})
    assert [*study.trials] == ["letters/tiny/pml.CircleLoss/trial0"]


def test_losses_with_as_many_dimensions_try_the_same_learning_rates(tiny):
    first = study_of(tiny, "triplet").trials.values()
    second = study_of(tiny, "supcon").trials.values()
    factors = [
        [trial.options["recipe.lr_factor"] for trial in trials] for trials in (first, second)
    ]
    assert factors[0] == factors[1]


@pytest.mark.parametrize("loss", list_losses())
def test_every_trial_of_every_loss_has_options_within_its_bounds(tiny, loss):
    study = study_of(tiny, loss, {"trials": 9})
    for trial in study.trials.values():
        checked = options_model(loss).model_validate(trial.run.loss_options)
        assert checked.model_dump(mode="json") == trial.run.loss_options


KEYS = {
    "seed": ({"seed": 1}, {"trials", "run"}),
    "folds": ({"folds": 5}, {"trials", "run"}),
    "metric": ({"metric": "recall@1"}, {"trials", "run"}),
    "classes": ({"classes": "contiguous"}, {"trials", "run"}),
    "every": ({"every": 2}, {"trials", "run"}),
    "use_folds": ({"use_folds": 2}, {"trials", "run"}),
    "trials": ({"trials": 3}, set()),
    "space": ({"lr_factor": [0.5, 2]}, {"run", "later trials"}),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_setting_of_the_tuning_moves_the_keys_of_what_it_decides(tiny, name):
    change, moved = KEYS[name]
    before, after = (study_of(tiny, "triplet", {"trials": 2} | extra) for extra in ({}, change))
    path = "letters/tiny/triplet"
    keys = [
        {
            "trials": study.trials[f"{path}/trial0"].key,
            "later trials": study.trials[f"{path}/trial1"].key,
            "run": study.runs[f"{path}/seed0"].train_key,
        }
        for study in (before, after)
    ]
    assert {kind for kind in keys[0] if keys[0][kind] != keys[1][kind]} - {"later trials"} == (
        moved - {"later trials"}
    )
    if "later trials" in moved:
        assert keys[0]["later trials"] != keys[1]["later trials"]


def test_an_untuned_run_has_no_word_of_tuning_in_its_key(tiny):
    run = next(iter(check_study(tiny, "tiny").runs.values()))
    assert not {"tuning", "last_epoch"} & run.settings.keys()
    assert "last_epoch" in dataclasses.replace(run, last_epoch=3).settings
