"""The cores and GPUs that the rules ask for."""

import dataclasses

import pytest

from dmlbench.study.cluster import Cluster
from dmlbench.study.study import check_study
from dmlbench.training.prefetch import THREADS
from dmlbench.workflow.resources import (
    GPU_CORES,
    cluster_threads,
    scores_on_gpu,
    training_threads,
)


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
    ("dataset_type", "fraction", "on_gpu"),
    [("sop", 1.0, True), ("sop", 0.3, False), ("omniglot", 1.0, False), ("inat2018", 1.0, True)],
)
def test_many_test_images_are_scored_on_a_gpu(tiny, tmp_path, dataset_type, fraction, on_gpu):
    tiny["datasets"] = {"letters": {"type": dataset_type, "class_fraction": fraction}}
    assert scores_on_gpu(get_run(tiny), tmp_path) is on_gpu


def test_a_run_with_another_test_data_set_is_scored_by_the_size_of_that_one(tiny, tmp_path):
    tiny["datasets"] = {"letters": {"type": "cars196", "test_on": "sop"}}
    assert scores_on_gpu(get_run(tiny), tmp_path)


def test_images_that_nobody_counted_are_taken_as_few_until_they_are_packed(
    tiny, tmp_path, write_store
):
    run = dataclasses.replace(get_run(tiny), facts={"channels": 1, "recall_at": [1]})
    store = tmp_path / "store"
    assert not scores_on_gpu(run, store)
    write_store(store, splits={"test": [900, 200000]})
    assert scores_on_gpu(run, store)


def test_a_training_uses_at_most_one_core_and_those_that_prepare_its_images():
    assert GPU_CORES == 1 + THREADS


@pytest.mark.parametrize(
    ("loss", "settings", "expected"),
    [
        ("proxy_anchor", {"cores_per_gpu": 6}, 6),
        ("proxy_anchor", {"cores_per_gpu": 1}, 2),  # at least what the recipe computes with
        ("proxy_anchor", {"cores_per_gpu": 6, "device": "cpu"}, 2),
        ("control_untrained", {"cores_per_gpu": 6}, 6),
        ("control_random", {"cores_per_gpu": 6}, 2),
    ],
)
def test_on_a_cluster_a_training_asks_for_the_cores_of_a_gpu(tiny, loss, settings, expected):
    tiny["recipe"]["cpu_threads"] = 2
    tiny["plan"]["controls"] = ["random", "untrained"]
    assert cluster_threads(get_run(tiny, loss), Cluster(**settings)) == expected
