"""Where each run stands, told from files alone."""

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest

from dmlbench import study
from dmlbench.problems import StudyError
from dmlbench.status import describe, show_status, survey

ONE, TWO = "letters/tiny/proxy_anchor/seed0", "letters/tiny/normalized_softmax/seed0"
CONTROL = "letters/tiny/control_random/seed0"


@pytest.fixture
def made(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return study.check(tiny, "tiny")


def states(made):
    return {standing.run.path: standing.state for standing in survey(made)}


def said(made):
    return "\n".join(describe(made, survey(made)))


def test_before_the_first_job_all_runs_wait(made):
    assert {*states(made).values()} == {"waiting"}
    assert said(made) == "tiny: 3 runs: 3 waiting"


def test_results_of_the_planned_keys_are_done_and_others_are_stale(tiny, made, write_results):
    write_results(made)
    (made.folder / "leaderboard").mkdir()
    (made.folder / "leaderboard/leaderboard.md").touch()
    assert said(made).splitlines() == [
        "tiny: 3 runs: 3 done",
        "",
        "The leaderboard: results/tiny/leaderboard/leaderboard.md",
    ]
    tiny["losses"] = {"proxy_anchor": {"alpha": 16}}
    changed = study.check(tiny, "tiny")
    assert states(changed) == {ONE: "stale", TWO: "done", CONTROL: "done"}
    assert "1 waiting, with a result of other settings or code" in said(changed)
    assert "The leaderboard (of before): " in said(changed)


def test_a_training_without_scores_of_its_key_is_to_be_scored(tiny, made, write_results):
    write_results(made, ONE, stage="run.json")
    write_results(made, TWO)
    assert states(made) == {ONE: "unscored", TWO: "done", CONTROL: "waiting"}
    tiny["evaluation"] = {"recall_at": [3]}
    assert states(study.check(tiny, "tiny"))[TWO] == "unscored"


@pytest.mark.parametrize("stage", ["run.json", "metrics.json", "failed.json"])
def test_a_failed_run_says_why_before_and_after_the_verdict(made, write_results, stage):
    write_results(made, ONE, status="diverged", stage=stage.replace("failed", "metrics"))
    if stage == "failed.json":
        folder = made.folder / "runs" / ONE
        (folder / "metrics.json").rename(folder / "failed.json")
        (folder / "run.json").unlink()
    assert states(made)[ONE] == "failed"
    assert f"{ONE}  diverged: it is diverged" in said(made)


def test_scores_that_failed_are_a_failure_although_the_training_is_there(made, write_results):
    write_results(made, ONE, status="error")
    folder = made.folder / "runs" / ONE
    (folder / "metrics.json").rename(folder / "failed.json")
    write_results(made, ONE, stage="run.json")
    assert states(made)[ONE] == "failed"


def test_a_held_lock_is_a_running_training_whatever_else_is_there(
    made, write_results, write_attempt
):
    write_results(made)
    lock = write_attempt(made, ONE, step=150, steps=400)
    with lock.open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert states(made)[ONE] == "running"
        lines = said(made).splitlines()
    assert lines[0] == "tiny: 3 runs: 2 done, 1 running"
    assert lines[1] in ("about 30 s left, 1 at a time", "about 29 s left, 1 at a time")
    _, step, loss, rate, *_, device, host = lines[4].split()
    assert (step, loss, rate, device) == ("150/400", "0.5", "480", "cpu")
    assert host == os.uname().nodename
    assert states(made)[ONE] == "done"


def test_a_trainer_that_has_not_stepped_yet_starts(made):
    folder = made.folder / "state" / ONE
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert f"{ONE}  starts" in said(made)
    assert states(made)[ONE] == "waiting"


def test_a_free_lock_here_is_a_dead_trainer_or_one_that_was_stopped(made, write_attempt):
    write_attempt(made, ONE, step=150, steps=400)
    write_attempt(made, TWO, ended="timeout")
    assert states(made) == {ONE: "dead", TWO: "stopped", CONTROL: "waiting"}
    assert f"{ONE}        killed at step 150 of 400" in said(made)
    assert f"{TWO}  stopped before its first step" in said(made)


def test_an_attempt_under_another_key_is_none(tiny, made, write_attempt):
    write_attempt(made, ONE, step=150, steps=400)
    tiny["losses"] = {"proxy_anchor": {"alpha": 16}}
    assert states(study.check(tiny, "tiny"))[ONE] == "waiting"


def test_a_free_lock_of_another_machine_is_believed_until_it_is_quiet(made, write_attempt):
    write_attempt(made, ONE, host="node7", time=time.time() - 60, step=150, steps=400)
    write_attempt(made, TWO, host="node7", time=time.time() - 420, step=150, steps=400)
    assert states(made) == {ONE: "running", TWO: "silent", CONTROL: "waiting"}
    assert f"{TWO}  no sign for 7 min of node7, at step 150 of 400" in said(made)


def test_attempts_that_got_nowhere_are_counted(made, write_attempt):
    file = write_attempt(made, ONE).with_name("attempts.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"idle": 1}))
    assert f"{ONE}  killed before its first step  1 attempt before it made no progress" in said(
        made
    )


def test_the_time_left_is_of_what_waits_over_what_runs(tiny, made, write_results, write_attempt):
    tiny["plan"]["seeds"] = [0, 1, 2]
    made = study.check(tiny, "tiny")
    write_results(made, ONE)  # a minute
    assert "about 5 min of training left, one at a time; none is running" in said(made)
    with contextlib.ExitStack() as held:
        for path in (TWO, TWO.replace("seed0", "seed1")):  # half a minute left
            holder = held.enter_context(write_attempt(made, path, step=1, steps=9).open("w"))
            fcntl.flock(holder, fcntl.LOCK_EX)
        assert "about 2 min left, 2 at a time" in said(made)


def test_watching_ends_when_all_runs_have_ended(made, write_results, capsys):
    write_results(made, ONE, status="diverged")
    late = threading.Timer(0.3, write_results, (made, TWO, CONTROL))
    late.start()
    show_status(made, every=0.05)
    late.join()
    looks = capsys.readouterr().out.split("tiny: 3 runs: ")
    assert looks[1].startswith("2 waiting, 1 failed")
    assert looks[-1].startswith("2 done, 1 failed")


def test_on_a_terminal_it_is_drawn_in_place_and_ctrl_c_ends_it_quietly(made, tiny):
    made.folder.mkdir(parents=True)
    (made.folder / "study.json").write_text(json.dumps(tiny))
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "dmlbench", "status", "tiny", "--watch", "0.1"]
    process = subprocess.Popen(command, stdout=terminal, stderr=subprocess.PIPE)
    drawn = b""
    while drawn.count(b"\033[H") < 3:
        drawn += os.read(master, 1000)
    process.send_signal(signal.SIGINT)
    assert (process.wait(30), process.stderr.read()) == (0, b"")
    assert b"tiny: 3 runs: 3 waiting\033[K\r\n\033[J" in drawn


def test_a_study_is_found_by_its_file_its_name_or_its_results(made, tiny):
    made.folder.mkdir(parents=True)
    (made.folder / "study.json").write_text(json.dumps(tiny))
    for named in ("tiny", "results/tiny", "results/tiny/study.json"):
        assert study.read(named).runs.keys() == made.runs.keys()
    with pytest.raises(StudyError, match=r"there is no such file\. Studies with .* here: tiny\."):
        study.read("tinny")


def test_looking_imports_no_torch(made, write_results):
    code = (
        "import sys; from dmlbench import due, plan, speeds, status, study; "
        "print({'torch', 'pandas', 'mlflow', 'PIL'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
