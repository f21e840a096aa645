"""A training stops in time: after a signal, and before its job ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dmlbench.training import time_limit
from dmlbench.training.time_limit import Stopped, TimeLimit, Timings, read_time_limit, stop_requests

NO_LIMIT = TimeLimit(None)


@pytest.fixture(autouse=True)
def timings(monkeypatch):
    """The timings of a process that has measured nothing yet."""
    fresh = Timings()
    monkeypatch.setattr(time_limit, "timings", fresh)
    return fresh


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGXCPU,
        signal.SIGHUP,
    ],
)
def test_a_signal_is_a_reason_to_stop_and_kills_nothing(number):
    before = signal.getsignal(number)
    with stop_requests(NO_LIMIT) as stop:
        assert stop() is None
        os.kill(os.getpid(), number)
        assert stop() == stop.reason == "stopped"
    assert signal.getsignal(number) == before


def test_under_nohup_the_end_of_the_terminal_is_no_reason_to_stop():
    code = (
        "import os, signal; from dmlbench.training.time_limit import TimeLimit, stop_requests\n"
        "with stop_requests(TimeLimit(None)) as stop:\n"
        "    os.kill(os.getpid(), signal.SIGHUP); print(stop())"
    )
    ignored = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{code}"
    for program, answer in ((code, "stopped\n"), (ignored, "None\n")):
        process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert process.stdout == answer, process.stderr


def test_the_limit_is_a_reason_to_stop_before_it_is_reached():
    with stop_requests(TimeLimit(0.2 / 60)) as stop:
        assert stop() is None
        time.sleep(0.155)
        assert stop() == "timeout"


@pytest.mark.parametrize(
    ("minutes", "margin"),
    [
        (24 * 60, 72 * 60),  # a twentieth
        (30, 120),
        (10, 120),
        (4, 60),  # at most a quarter
        (0.1, 1.5),
    ],
)
def test_the_margin_is_a_share_of_the_limit_and_at_least_two_minutes(minutes, margin):
    assert TimeLimit(minutes).margin == pytest.approx(margin)


def test_the_margin_covers_the_checkpoint_that_was_the_last_one_to_be_saved(timings):
    limit = TimeLimit(10)
    timings.save, timings.step = 100.0, 5.0
    assert limit.margin == 210
    timings.save = 1000.0  # then nothing helps, and some steps are still tried
    assert limit.margin == 300


def test_a_short_limit_is_used_as_soon_as_steps_and_checkpoints_are_measured(timings):
    limit = TimeLimit(1)
    assert limit.margin == 15
    timings.save, timings.step = 0.1, 0.2
    assert limit.margin == 3
    timings.save = 5.0
    assert limit.margin == pytest.approx(10.4)


def test_the_end_of_the_job_counts_if_it_is_before_the_limit(monkeypatch):
    monkeypatch.setenv("DMLBENCH_JOB_END", str(time.time() + 100))
    assert read_time_limit(None).seconds == pytest.approx(100, abs=1)
    assert read_time_limit(60).seconds == pytest.approx(100, abs=1)
    assert read_time_limit(1).seconds == 60
    monkeypatch.setenv("DMLBENCH_JOB_END", "1000")  # it is over
    assert read_time_limit(60).is_near


def test_a_signal_near_the_end_of_the_job_is_its_warning():
    """As of `sbatch --signal=TERM@120`: it counts as an attempt, that of a user does not."""
    for seconds, reason in ((10_000, "stopped"), (180, "timeout")):
        with stop_requests(TimeLimit(None, time.time() + seconds)) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop() == reason
            os.kill(os.getpid(), signal.SIGINT)  # of a person
            assert stop() == "stopped"


def test_where_nothing_is_to_be_saved_a_request_ends_the_job_at_once():
    with (
        pytest.raises(Stopped, match=r"^timeout: between its steps"),
        stop_requests(TimeLimit(0.2 / 60)) as stop,
        stop.ending_at_once(),
    ):
        time.sleep(5)
    with stop_requests(NO_LIMIT) as stop:
        with pytest.raises(Stopped, match=r"^stopped: between its steps"), stop.ending_at_once():
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # while the result of a failure is written
        assert stop.reason == "stopped"


def test_while_there_is_something_to_save_a_request_waits_for_the_next_step():
    with stop_requests(TimeLimit(0.2 / 60)) as stop:
        with stop.ending_at_once():
            assert stop() is None
            time.sleep(0.25)  # the alarm comes, and raises nothing
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop() == "timeout"
        with pytest.raises(Stopped, match=r"^timeout"), stop.ending_at_once():
            pytest.fail("the embedding after the last step does not begin")


def test_start_and_steps_are_measured_without_the_time_of_saving(timings):
    with stop_requests(NO_LIMIT) as stop:
        assert stop.reason is None  # while it waits for a GPU: no step
        assert timings.start is None
        stop()
        time.sleep(0.05)
        timings.saving += 0.04
        stop()
    assert timings.start > 0
    assert 0.01 <= timings.step < 0.04
    timings.start, timings.step, timings.save = 12.0, 0.25, 90.0
    assert str(timings) == "the start 12 s, a step 0.25 s, a checkpoint 90 s"
