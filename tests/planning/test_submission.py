"""What `dmlbench submit --dry-run` says: the jobs of each partition, and what stays here."""

import pytest

from dmlbench.planning import job_estimates, throughput
from dmlbench.planning.submission import describe_submission
from dmlbench.study.study import check_study
from dmlbench.utils.gpus import Gpus


@pytest.fixture(autouse=True)
def _login_node(monkeypatch):
    monkeypatch.setattr(throughput, "find_gpus", lambda: Gpus((), ()))
    monkeypatch.setattr(job_estimates, "model_sizes", lambda runs: {})


def test_each_trial_is_a_job_and_choices_are_made_here(tiny, stores, write_store):
    tiny["cluster"] = {"partition": "gpu", "cpu_partition": "cpu", "max_minutes": 60}
    study = check_study(tiny | {"tuning": {"trials": 4}}, "tiny")
    for store in study.stores:
        write_store(stores / store)
    lines = describe_submission(study, stores)
    assert lines[0] == "tiny: would submit 11 jobs"  # 8 trials, and 3 trainings with their scorings
    (row,) = [line.split() for line in lines if line.startswith("gpu ")]
    assert row[:4] == ["gpu", "10", "10.0", "10.0"]  # hours: nobody knows the speed
    assert lines[-1] == "On this machine: choose 2, build_leaderboard 1, verdict 1."
