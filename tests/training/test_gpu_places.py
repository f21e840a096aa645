"""A training gets its place at a GPU, or ends without having counted as an attempt."""

import json
import os
import signal

import numpy as np
import pytest

from dmlbench.study.study import check_study
from dmlbench.training import job, resumable_job
from dmlbench.training.resumable_job import TRY_AGAIN
from dmlbench.training.run_state import inspect_training
from dmlbench.training.time_limit import Stopped, timings
from dmlbench.utils.gpu_lease import lease
from dmlbench.workflow.conclusion import find_holes

PATH = "letters/tiny/normalized_softmax/seed0"
MOMENT = 1e-6


@pytest.fixture
def study(tiny, tmp_path, monkeypatch, use_gpus):
    """The tiny study on a machine with one GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(timings, "wait", 0.0)
    use_gpus("GPU-a")
    return check_study(tiny, "tiny")


@pytest.fixture
def seen(monkeypatch):
    """CUDA_VISIBLE_DEVICES of each training, in place of which nothing is computed."""
    seen = []

    def compute(_study, run, *_):
        seen.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
        return job.Output([], np.zeros((1, run.model.dim), np.float32), np.zeros(1, np.int32))

    monkeypatch.setattr(job, "_compute", compute)
    return seen


def train(study, data, minutes=None, path=PATH):
    """The exit code, and the result if there is one."""
    files = study.files.run(path)
    code = job.train_job(study, study.runs[path], data / "stores", minutes)
    return code, json.loads(files.run.read_text()) if files.run.is_file() else None


@pytest.mark.parametrize("uses_mps", [True, False])
def test_a_run_shares_its_gpu_with_as_many_runs_as_the_study_allows(
    tiny, study, seen, data_folder, monkeypatch, uses_mps
):
    monkeypatch.setattr(resumable_job, "uses_mps", lambda: uses_mps)
    sharing = check_study(tiny | {"runs_per_gpu": 2}, "tiny")
    with lease(["GPU-a"], 2):
        code, result = train(sharing, data_folder)
    assert (code, result["status"], seen) == (0, "ok", ["GPU-a"])
    origin = result["provenance"]
    assert (origin["runs_per_gpu"], origin["mps"]) == (2, uses_mps)


def test_a_run_without_a_model_waits_for_no_gpu(tiny, study, seen, data_folder):
    with lease(["GPU-a"]):
        code, result = train(study, data_folder, path="letters/tiny/control_random/seed0")
    assert (code, result["status"], seen) == (0, "ok", [None])
    assert {"runs_per_gpu", "mps"}.isdisjoint(result["provenance"])


def test_a_job_that_waits_until_its_time_is_over_is_no_attempt(
    study, seen, data_folder, capsys, monkeypatch
):
    run = study.runs[PATH]
    with lease(["GPU-a"]):
        for _ in range(4):
            assert train(study, data_folder, MOMENT) == (TRY_AGAIN, None)
            reason = f"no GPU became free in 0 s: GPU-a is used by process {os.getpid()} of "
            assert reason in capsys.readouterr().out
            unfinished = inspect_training(study.files.run(PATH).state, run.train_key)
            assert (unfinished.state, unfinished.idle) == ("stopped", 0)
            assert unfinished.obstacle.startswith(reason)
    hole = find_holes(study, data_folder)[PATH]
    assert hole.status == "lost"
    start = "its job ended without a result, before its first step: "
    assert hole.message.startswith(start + reason)
    code, result = train(study, data_folder)
    assert (code, result["status"], seen) == (0, "ok", ["GPU-a"])


def test_a_job_that_is_cancelled_while_it_waits_is_no_attempt(
    study, seen, data_folder, monkeypatch
):
    def cancel(seconds):
        os.kill(os.getpid(), signal.SIGTERM)

    with lease(["GPU-a"]), monkeypatch.context() as patch:
        patch.setattr("dmlbench.utils.gpu_lease.time.sleep", cancel)
        for _ in range(4):
            assert train(study, data_folder) == (TRY_AGAIN, None)
    assert train(study, data_folder)[1]["status"] == "ok"


def test_a_wait_neither_adds_to_the_attempts_without_progress_nor_forgets_them(study, data_folder):
    """With a free GPU, these calls are out of time before their first step; without, they wait."""
    endings = []
    for is_free in (True, False, False, True):
        with lease([] if is_free else ["GPU-a"]):
            assert train(study, data_folder, MOMENT) == (TRY_AGAIN, None)
        record = json.loads((study.files.run(PATH).state / "attempts.json").read_text())
        endings.append((record["ended"], record["idle"]))
    assert endings == [("timeout", 0), ("waited", 1), ("waited", 1), ("timeout", 1)]
    code, result = train(study, data_folder)
    assert (code, result["status"]) == (0, "timeout")


@pytest.mark.parametrize(("share", "ended"), [(0.6, "waited"), (0.4, "timeout")])
def test_a_time_limit_that_was_over_because_of_the_wait_counts_for_nothing(
    study, data_folder, monkeypatch, share, ended
):
    def compute(*_):
        timings.wait = share * 60
        raise Stopped("timeout", "timeout: between its steps")

    monkeypatch.setattr(job, "_compute", compute)
    assert train(study, data_folder, minutes=1) == (TRY_AGAIN, None)
    record = json.loads((study.files.run(PATH).state / "attempts.json").read_text())
    assert record["ended"] == ended
    waited = "it waited 36 s for a GPU, and then its time limit of 60 s was over"
    assert (record["message"] == waited) == (ended == "waited")
