"""What jobs ask the scheduler of a cluster for."""

import pytest

from dmlbench.planning.job_estimates import Estimate
from dmlbench.planning.job_requests import (
    ClusterJobs,
    request_scoring,
    request_training,
    site_names,
    site_options,
)
from dmlbench.study.cluster import Cluster
from dmlbench.study.study import check_study

HOUR = Estimate(3600.0, 60.0, training_mb=6000, scoring_mb=1500)
UNKNOWN = Estimate(None, None, training_mb=6000, scoring_mb=1500)


@pytest.mark.parametrize(
    ("settings", "minutes"),
    [
        ({}, 125),  # 5 to start, and twice an hour
        ({"time_factor": 1}, 65),
        ({"max_minutes": 90}, 80),  # 10 of them are for the scores in the same job
        ({"max_minutes": 90, "score_with_training": False}, 90),
        ({"max_minutes": 12}, 6),
        ({"max_minutes": 1}, 1),
    ],
)
def test_a_training_asks_for_a_multiple_of_its_estimate_within_the_longest_run_time(
    settings, minutes
):
    cluster = Cluster(**settings)
    request = request_training(cluster, HOUR)
    assert request == (minutes, 6000)
    if cluster.score_with_training and cluster.max_minutes > 1:
        both = request.minutes + request_scoring(cluster, HOUR).minutes
        assert both <= cluster.max_minutes


@pytest.mark.parametrize("estimate", [None, UNKNOWN])
def test_a_training_of_unknown_length_asks_for_the_longest_run_time(estimate):
    cluster = Cluster(max_minutes=600)
    assert request_training(cluster, estimate).minutes == 535
    assert request_scoring(cluster, estimate).minutes == 65


def test_each_attempt_asks_for_more_time_and_after_a_kill_for_more_memory():
    cluster = Cluster()
    asked = [request_training(cluster, HOUR, attempt) for attempt in (1, 2, 4, 9)]
    assert asked == [(125, 6000), (245, 6000), (485, 6000), (485, 6000)]
    killed = [request_training(cluster, HOUR, attempt, was_killed=True) for attempt in (2, 4, 9)]
    assert killed == [(245, 12000), (485, 24000), (485, 24000)]


def test_the_memory_of_the_study_takes_the_place_of_the_estimate():
    cluster = Cluster(memory_mb=900)
    assert request_training(cluster, HOUR).memory_mb == 900
    assert request_training(cluster, HOUR, attempt=3, was_killed=True).memory_mb == 2700
    assert request_scoring(cluster, HOUR).memory_mb == 1500


def test_a_scoring_that_failed_asks_for_more_of_both():
    assert request_scoring(Cluster(), HOUR) == (10, 1500)
    assert request_scoring(Cluster(), HOUR, attempt=2) == (10, 3000)
    assert request_scoring(Cluster(max_minutes=8), HOUR).minutes == 4


@pytest.mark.parametrize(
    ("settings", "with_gpu", "without"),
    [
        ({}, {"gpu": 1}, {"gpu": 0}),
        (
            {"partition": "gpu", "cpu_partition": "cpu", "account": "lab", "qos": "long"},
            {"gpu": 1, "slurm_partition": "gpu", "slurm_account": "lab", "qos": "long"},
            {"gpu": 0, "slurm_partition": "cpu", "slurm_account": "lab", "qos": "long"},
        ),
        (
            {"partition": "all", "gpu_type": "a100", "constraint": "nvlink&80g"},
            {
                "gpu": 1,
                "slurm_partition": "all",
                "gpu_model": "a100",
                "constraint": "nvlink&80g",
            },
            {"gpu": 0, "slurm_partition": "all"},
        ),
        ({"gpu_request": "gres"}, {"gpu": 0, "gres": "gpu:1"}, {"gpu": 0}),
        (
            {"gpu_request": "gres", "gpu_type": "v100"},
            {"gpu": 0, "gres": "gpu:v100:1"},
            {"gpu": 0},
        ),
    ],
)
def test_the_place_of_a_job_is_that_of_the_study(settings, with_gpu, without):
    cluster = Cluster(**settings)
    assert site_options(cluster, needs_gpu=True) == with_gpu
    assert site_options(cluster, needs_gpu=False) == without
    assert site_names(cluster) == with_gpu.keys() | without.keys()


@pytest.fixture
def jobs(tiny, tmp_path, monkeypatch):
    """The jobs of the tiny study with this section `cluster`."""
    monkeypatch.chdir(tmp_path)

    def create(**cluster):
        study = check_study(tiny | {"cluster": cluster}, "tiny")
        estimates = {run.cell: HOUR for run in study.runs.values()}
        return study, ClusterJobs(study, tmp_path, estimates)

    return create


def test_a_training_and_the_scoring_in_its_job_name_the_same_place(jobs):
    study, asks = jobs(partition="gpu", cpu_partition="cpu", gpu_type="a100")
    run = study.runs["letters/tiny/proxy_anchor/seed0"]
    training = asks.training(run, 1, is_scored=True)
    place = {"gpu": 1, "slurm_partition": "gpu", "gpu_model": "a100"}
    limits = {"runtime": 125, "mem_mb": 6000, "time_limit": "--max-minutes 125"}
    assert training == place | limits
    assert asks.scoring(run, 1, is_alone=False) == place | {"runtime": 10, "mem_mb": 1500}
    alone = {"gpu": 0, "slurm_partition": "cpu", "runtime": 10, "mem_mb": 1500}
    assert asks.scoring(run, 1, is_alone=True) == alone


def test_a_trial_asks_for_the_time_of_all_folds_up_to_the_longest_run_time(
    jobs, tiny, write_attempt
):
    tiny["tuning"] = {"trials": 2}
    study, asks = jobs(partition="gpu", gpu_type="a100", max_minutes=300)
    trial = study.trials["letters/tiny/proxy_anchor/trial1"]
    tried = HOUR._replace(trial_seconds=2 * 3600.0)
    asks = ClusterJobs(study, asks.stores, {trial.cell: tried})
    place = {"gpu": 1, "slurm_partition": "gpu", "gpu_model": "a100"}
    limits = {"runtime": 245, "mem_mb": 6000, "time_limit": "--max-minutes 245"}
    assert asks.trial(trial, 1) == place | limits
    assert asks.trial(trial, 2)["runtime"] == 300  # no share of it is kept for a scoring
    write_attempt(study, trial.path)
    assert (asks.trial(trial, 1)["mem_mb"], asks.trial(trial, 2)["mem_mb"]) == (6000, 12000)
    unknown = ClusterJobs(study, asks.stores, {trial.cell: HOUR})
    assert unknown.trial(trial, 1)["runtime"] == 300


def test_scores_of_many_images_bring_a_control_to_a_gpu(jobs, tiny):
    tiny["datasets"] = {"letters": {"type": "sop"}}
    study, asks = jobs()
    run = study.runs["letters/tiny/control_random/seed0"]
    assert asks.training(run, 1, is_scored=True)["gpu"] == 1
    assert asks.training(run, 1, is_scored=False)["gpu"] == 0
    assert asks.scoring(run, 1, is_alone=True)["gpu"] == 1


def test_on_a_cluster_of_cpus_no_job_asks_for_a_gpu(jobs, tiny):
    tiny["datasets"] = {"letters": {"type": "sop"}}
    study, asks = jobs(device="cpu", partition="main", constraint="a100", gpu_type="a100")
    run = study.runs["letters/tiny/proxy_anchor/seed0"]
    for resources in (asks.training(run, 1, True), asks.scoring(run, 1, True), asks.packing()):
        place = {name: value for name, value in resources.items() if "m" not in name}
        assert place == {"gpu": 0} or place == {"gpu": 0, "slurm_partition": "main"}
        assert resources["slurm_partition"] == "main"


def test_packing_keeps_within_the_longest_run_time(jobs):
    assert jobs()[1].packing() == {"gpu": 0, "runtime": 240, "mem_mb": 4000}
    assert jobs(max_minutes=60)[1].packing()["runtime"] == 60


@pytest.mark.parametrize(("ended", "memory"), [("killed", 12000), ("timeout", 6000)])
def test_a_training_that_had_time_to_save_asks_for_no_more_memory(
    jobs, write_attempt, ended, memory
):
    study, asks = jobs()
    path = "letters/tiny/proxy_anchor/seed0"
    write_attempt(study, path, ended=ended)
    assert asks.training(study.runs[path], 1, True)["mem_mb"] == 6000
    assert asks.training(study.runs[path], 2, True)["mem_mb"] == memory
    assert (study.files.run(path).state / "attempts.json").is_file()  # it only looks
