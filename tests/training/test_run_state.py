"""A run has one trainer, silent deaths are counted, and requests to stop are noticed."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from dmlbench.training.run_state import Attempts, hold_state, stop_requests

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


def attempt(state, saves=False, ended=None, key="k"):
    attempts = Attempts(state, key)
    failure = attempts.failure()
    if failure is None:
        attempts.begin()
        if saves:
            time.sleep(0.01)
            (state / "checkpoint.pt").write_text("x")
        if ended:
            attempts.end(ended)
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


def test_a_signal_is_a_reason_to_stop_and_kills_nothing():
    for number in (signal.SIGTERM, signal.SIGINT):
        with stop_requests(None) as stop:
            assert stop() is None
            os.kill(os.getpid(), number)
            assert stop() == "stopped"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_time_limit_is_a_reason_to_stop_before_it_is_reached():
    with stop_requests(0.1 / 60) as stop:
        assert stop() is None
        time.sleep(0.097)
        assert stop() == "timeout"


def test_the_record_of_an_attempt_says_how_it_ended(tmp_path):
    attempt(tmp_path, ended="timeout")
    assert json.loads((tmp_path / "attempts.json").read_text())["ended"] == "timeout"
