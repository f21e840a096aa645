"""What a cell cost: hours of GPUs or cores, those of failed seeds too."""

from types import SimpleNamespace

import pytest

from dmlbench.tracking.costs import costs_of_cell, costs_of_run

RUN = SimpleNamespace(recipe=SimpleNamespace(cpu_threads=2))
CPU = {"device": "cpu (test)", "train_seconds": 1800.0, "peak_memory_mb": 500.0}
GPU = {"device": "NVIDIA H200", "train_seconds": 3600.0, "peak_memory_mb": 900.0}
KILLED = {"host": "here", "started": "2026-01-02T03:04:05+00:00"}


def test_a_training_on_a_cpu_takes_hours_of_all_its_cores():
    assert costs_of_run(RUN, CPU | {"images_per_second": None}) == {
        "train_seconds": 1800.0,
        "peak_memory_mb": 500.0,
        "core_hours": 1.0,
    }


@pytest.mark.parametrize(("shared", "hours"), [({}, 1.0), ({"runs_per_gpu": 4}, 0.25)])
def test_runs_that_share_a_gpu_share_its_hours(shared, hours):
    costs = costs_of_run(RUN, GPU | shared)
    assert costs["gpu_hours"] == hours
    assert "core_hours" not in costs


def test_a_gpu_that_torch_does_not_see_costs_nothing():
    costs = costs_of_run(RUN, CPU | {"runs_per_gpu": 1})
    assert costs["core_hours"] == 1.0
    assert "gpu_hours" not in costs


def test_a_run_that_was_killed_has_no_costs():
    assert costs_of_run(RUN, KILLED) == {}
    assert costs_of_cell([RUN], [KILLED]) == {}


def test_the_seeds_of_a_cell_cost_their_sum_and_its_memory_is_the_highest():
    seeds = [
        GPU | {"images_per_second": 100.0},
        GPU | {"images_per_second": 200.0, "train_seconds": 1800.0, "peak_memory_mb": 700.0},
        KILLED,
    ]
    assert costs_of_cell([RUN] * 3, seeds) == {
        "train_seconds": 5400.0,
        "gpu_hours": 1.5,
        "peak_memory_mb": 900.0,
        "images_per_second": 150.0,
    }
