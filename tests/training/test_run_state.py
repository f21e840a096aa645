"""A run has one trainer, and silent deaths are counted and explained."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from dmlbench.training import run_state
from dmlbench.training.run_state import Attempts, hold_state, inspect_training
from dmlbench.training.time_limit import TimeLimit, timings

HOLDER = """
import sys, time
from pathlib import Path
from dmlbench.training.run_state import hold_state
with hold_state(Path(sys.argv[1])):
    print("holds", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(folder, seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "holds\n"
    return process


def test_a_second_trainer_waits_for_the_first(tmp_path):
    process = holder(tmp_path / "state", 0.7)
    started = time.monotonic()
    with hold_state(tmp_path / "state"):
        waited = time.monotonic() - started
    assert process.wait() == 0
    assert waited > 0.4


def test_a_killed_trainer_leaves_no_lock(tmp_path):
    process = holder(tmp_path / "state", 60)
    process.kill()
    process.wait()
    with hold_state(tmp_path / "state"):
        pass


def test_a_lock_in_a_removed_folder_guards_nothing(tmp_path):
    """The first trainer removes its folder when it succeeds. A trainer that waited for that lock
    must take the lock of the new folder, or a third trainer would run at the same time."""
    state = tmp_path / "state"
    process = holder(state, 0.7)
    with (state / "lock").open() as old:
        shutil.rmtree(state)
        with hold_state(state):
            inode = (state / "lock").stat().st_ino
            assert inode != os.fstat(old.fileno()).st_ino
            with (state / "lock").open() as other:
                try:
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    held = True
            assert held
    process.kill()
    process.wait()


def attempt(state, saves=False, ended=None, key="k", limit=None):
    attempts = Attempts(state, key)
    failure = attempts.failure()
    if failure is None:
        attempts.begin(TimeLimit(limit))
        if saves:
            time.sleep(0.01)
            (state / "checkpoint.pt").write_text("x")
        if ended:
            attempts.end(ended, f"it was {ended}")
    return failure


def test_a_run_that_dies_twice_without_progress_is_killed(tmp_path):
    assert attempt(tmp_path) is None
    assert attempt(tmp_path) is None
    assert attempt(tmp_path)["status"] == "killed"


def test_a_run_that_is_out_of_time_twice_without_progress_is_a_timeout(tmp_path):
    assert attempt(tmp_path, ended="timeout") is None
    assert attempt(tmp_path, ended="timeout") is None
    assert attempt(tmp_path)["status"] == "timeout"


def test_attempts_with_progress_do_not_count(tmp_path):
    for _ in range(6):
        assert attempt(tmp_path) is None
        assert attempt(tmp_path, saves=True) is None


@pytest.mark.parametrize("name", ["checkpoint.pt", "finished.json"])
def test_the_progress_of_a_fold_counts(tmp_path, name):
    (tmp_path / "fold1").mkdir()
    for _ in range(4):
        assert attempt(tmp_path) is None
        time.sleep(0.01)
        (tmp_path / "fold1" / name).write_text("x")
        assert attempt(tmp_path) is None


def test_the_place_of_a_training_with_folds_is_that_of_its_last_fold(tmp_path):
    attempt(tmp_path)
    assert inspect_training(tmp_path, "k").place == "before its first step"
    for number in (0, 1):
        file = tmp_path / f"fold{number}/progress.json"
        file.parent.mkdir()
        file.write_text(json.dumps({"step": 5 + number, "steps": 9}))
        os.utime(file, (number + 1, number + 1))
        place = inspect_training(tmp_path, "k").place
        assert place == f"at step {5 + number} of 9 of fold{number}"


def test_a_damaged_record_of_attempts_is_ignored(tmp_path):
    attempt(tmp_path)
    (tmp_path / "attempts.json").write_text("")
    assert attempt(tmp_path) is None


def test_an_attempt_that_the_user_stops_does_not_count(tmp_path):
    for _ in range(6):
        assert attempt(tmp_path, ended="stopped") is None


def test_attempts_under_other_settings_do_not_count(tmp_path):
    assert attempt(tmp_path) is None
    assert attempt(tmp_path) is None
    assert attempt(tmp_path, key="other") is None


def test_the_record_of_an_attempt_says_how_it_ended(tmp_path):
    attempt(tmp_path, ended="timeout")
    assert json.loads((tmp_path / "attempts.json").read_text())["ended"] == "timeout"


@pytest.fixture
def in_job(monkeypatch):
    """Let the next attempts run in this job of SLURM, on this node."""

    def enter(number, node="node1", restarts=None):
        monkeypatch.setenv("SLURM_JOB_ID", number)
        monkeypatch.setattr("platform.node", lambda: node)
        if restarts:
            monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)

    yield enter
    timings.save = timings.step = None


def test_the_record_of_an_attempt_says_where_it_ran(tmp_path, in_job):
    in_job("17", "node3")
    attempt(tmp_path)
    record = json.loads((tmp_path / "attempts.json").read_text())
    assert (record["job"], record["host"], record["process"]) == ("slurm:17", "node3", os.getpid())
    (tmp_path / "lock").touch()
    training = inspect_training(tmp_path, "k")
    assert (training.job, training.host) == ("slurm:17", "node3")


@pytest.mark.parametrize(
    ("state", "status", "text"),
    [
        ("OUT_OF_MEMORY", "out_of_memory", "SLURM ended it: OUT_OF_MEMORY (node1, job slurm:2)"),
        ("TIMEOUT", "timeout", "SLURM ended it: TIMEOUT (node1, job slurm:2)"),
        ("FAILED", "killed", "it was killed (node1, job slurm:2: out of memory?)"),
        (None, "killed", "it was killed (node1, job slurm:2: out of memory?)"),
    ],
)
def test_a_run_that_is_killed_again_and_again_says_what_slurm_says(
    tmp_path, in_job, monkeypatch, state, status, text
):
    monkeypatch.setattr(run_state, "job_state", lambda job: state)
    for number in "12":
        in_job(number)
        assert attempt(tmp_path) is None
    in_job("3")
    failure = attempt(tmp_path)
    assert failure["status"] == status
    start = "2 attempts in a row ended without progress. The last one: "
    assert failure["error"]["message"].startswith(start + text)
    fix = "`max_minutes`" if status == "timeout" else "`memory_mb`"
    assert fix in failure["error"]["message"]


@pytest.mark.parametrize("state", ["NODE_FAIL", "PREEMPTED"])
def test_an_attempt_that_ends_by_no_fault_of_its_own_does_not_count(
    tmp_path, in_job, monkeypatch, state
):
    monkeypatch.setattr(run_state, "job_state", lambda job: state)
    for number in range(6):
        in_job(str(number))
        assert attempt(tmp_path) is None


def test_a_job_that_slurm_requeues_does_not_count(tmp_path, in_job):
    for restarts in range(1, 7):
        in_job("5", restarts=str(restarts))
        assert attempt(tmp_path) is None


def test_attempts_in_one_job_count_without_asking_the_scheduler(tmp_path, in_job, monkeypatch):
    monkeypatch.setattr(run_state, "job_state", None)  # it would fail if it were called
    in_job("5")
    assert attempt(tmp_path) is None
    assert attempt(tmp_path) is None
    assert attempt(tmp_path)["status"] == "killed"


def test_a_kill_by_the_kernel_is_recognised_by_its_count(tmp_path, monkeypatch):
    monkeypatch.setattr(run_state, "oom_kills", iter((3, 4, 5)).__next__)
    for _ in range(2):
        assert attempt(tmp_path) is None
    message = attempt(tmp_path)["error"]["message"]
    assert "the kernel killed processes there, out of memory" in message


def test_a_kill_under_a_time_limit_may_be_that_of_the_limit(tmp_path):
    for _ in range(2):
        assert attempt(tmp_path, limit=30) is None
    message = attempt(tmp_path)["error"]["message"]
    assert "out of memory? or its time limit of 30 min?)" in message


def test_the_next_attempt_knows_how_long_a_checkpoint_took(tmp_path):
    timings.save = 40.0
    attempt(tmp_path)
    timings.save = timings.step = None
    attempt(tmp_path)
    assert timings.save == 40.0
    timings.save = timings.step = None


def test_a_record_of_another_kind_is_ignored(tmp_path):
    for record in ("[]", "{}", '{"key": "k"}', "1"):
        (tmp_path / "attempts.json").write_text(record)
        assert attempt(tmp_path) is None
