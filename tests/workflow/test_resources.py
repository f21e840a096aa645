"""The cores and GPUs that the rules ask for."""

import dataclasses

import pytest

from dmlbench.study.study import check_study
from dmlbench.training.prefetch import THREADS
from dmlbench.workflow.resources import GPU_CORES, scoring_gpus, training_threads


def get_run(tiny, loss="proxy_anchor"):
    return check_study(tiny, "tiny").runs[f"letters/tiny/{loss}/seed0"]


@pytest.mark.parametrize(
    ("cores", "gpu_runs", "expected"),
    [
        (16, 0, 1),  # no GPU: what the recipe says
        (16, 1, 9),  # more threads would have nothing to do
        (16, 2, 7),
        (16, 4, 3),
        (4, 4, 1),
        (2, 8, 1),
    ],
)
def test_trainings_on_gpus_share_the_cores_and_leave_one_for_scoring(
    tiny, cores, gpu_runs, expected
):
    run = get_run(tiny)
    assert training_threads(run, cores, gpu_runs) == expected
    if gpu_runs <= cores and expected > 1:
        assert expected * gpu_runs + run.evaluation.threads <= cores


def test_a_training_gets_at_least_the_cores_of_its_recipe(tiny):
    tiny["recipe"]["cpu_threads"] = 4
    assert training_threads(get_run(tiny), 8, 4) == training_threads(get_run(tiny), 8, 0) == 4


def test_a_run_that_needs_no_gpu_gets_no_share_of_the_cores(tiny):
    assert training_threads(get_run(tiny, "control_random"), 16, 2) == 1


@pytest.mark.parametrize(
    ("dataset_type", "fraction", "gpus"),
    [("sop", 1.0, 1), ("sop", 0.3, 0), ("omniglot", 1.0, 0), ("inat2018", 1.0, 1)],
)
def test_many_test_images_are_scored_on_a_gpu(tiny, tmp_path, dataset_type, fraction, gpus):
    tiny["datasets"] = {"letters": {"type": dataset_type, "class_fraction": fraction}}
    assert scoring_gpus(get_run(tiny), tmp_path) == gpus


def test_a_run_with_another_test_data_set_is_scored_by_the_size_of_that_one(tiny, tmp_path):
    tiny["datasets"] = {"letters": {"type": "cars196", "test_on": "sop"}}
    assert scoring_gpus(get_run(tiny), tmp_path) == 1


def test_images_that_nobody_counted_are_taken_as_few_until_they_are_packed(tiny, tmp_path):
    run = dataclasses.replace(get_run(tiny), facts={"channels": 1, "recall_at": [1]})
    store = tmp_path / "store"
    assert scoring_gpus(run, store) == 0
    store.mkdir()
    (store / "manifest.json").write_text('{"splits": {"test": [900, 200000]}}')
    assert scoring_gpus(run, store) == 1


def test_a_training_uses_at_most_one_core_and_those_that_prepare_its_images():
    assert GPU_CORES == 1 + THREADS
