"""What the rules ask for: cores and GPUs of a job."""

import dataclasses

import pytest

from dmlbench import study
from dmlbench.workflow import GPU_CORES, scoring_gpus, training_threads


def run_of(tiny, loss="proxy_anchor"):
    return study.check(tiny, "tiny").runs[f"letters/tiny/{loss}/seed0"]


@pytest.mark.parametrize(
    ("cores", "at_once", "expected"),
    [
        (16, 0, 1),  # no GPU: the recipe's
        (16, 1, 9),  # more would have nothing to do
        (16, 2, 7),
        (16, 4, 3),
        (4, 4, 1),
        (2, 8, 1),
    ],
)
def test_trainings_on_gpus_share_the_cores_and_leave_one_to_score(tiny, cores, at_once, expected):
    run = run_of(tiny)
    assert training_threads(run, cores, at_once) == expected
    if at_once <= cores and expected > 1:
        assert expected * at_once + run.evaluation.threads <= cores


def test_a_training_has_the_cores_of_its_recipe_at_least(tiny):
    tiny["recipe"]["cpu_threads"] = 4
    assert training_threads(run_of(tiny), 8, 4) == training_threads(run_of(tiny), 8, 0) == 4


def test_what_has_nothing_for_a_gpu_to_do_has_no_share(tiny):
    assert training_threads(run_of(tiny, "control_random"), 16, 2) == 1


@pytest.mark.parametrize(
    ("kind", "fraction", "gpus"),
    [("sop", 1.0, 1), ("sop", 0.3, 0), ("omniglot", 1.0, 0), ("inat2018", 1.0, 1)],
)
def test_the_scores_of_many_images_are_made_on_a_gpu(tiny, tmp_path, kind, fraction, gpus):
    tiny["datasets"] = {"letters": {"type": kind, "class_fraction": fraction}}
    assert scoring_gpus(run_of(tiny), tmp_path) == gpus


def test_what_is_tested_on_another_data_set_is_scored_by_its_size(tiny, tmp_path):
    tiny["datasets"] = {"letters": {"type": "cars196", "test_on": "sop"}}
    assert scoring_gpus(run_of(tiny), tmp_path) == 1


def test_images_that_nobody_counted_are_few_until_they_are_packed(tiny, tmp_path):
    run = dataclasses.replace(run_of(tiny), facts={"channels": 1, "recall_at": [1]})
    store = tmp_path / "store"
    assert scoring_gpus(run, store) == 0
    store.mkdir()
    (store / "manifest.json").write_text('{"splits": {"test": [900, 200000]}}')
    assert scoring_gpus(run, store) == 1


def test_a_training_s_most_cores_are_its_own_and_those_that_prepare_its_images():
    from dmlbench.training.ahead import THREADS

    assert GPU_CORES == 1 + THREADS
