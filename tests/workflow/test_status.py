"""`dmlbench status` reads how far each run is from files alone."""

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

from dmlbench.study.study import check_study, read_study
from dmlbench.utils.errors import StudyError
from dmlbench.workflow.status import format_statuses, read_statuses
from dmlbench.workflow.status_display import show_status

ONE, TWO = "letters/tiny/proxy_anchor/seed0", "letters/tiny/normalized_softmax/seed0"
CONTROL = "letters/tiny/control_random/seed0"


def states(study):
    return {status.run.path: status.state for status in read_statuses(study)}


def status_text(study):
    return "\n".join(format_statuses(study, read_statuses(study)))


def test_before_the_first_job_all_runs_wait(study):
    assert {*states(study).values()} == {"waiting"}
    assert status_text(study) == "tiny: 3 runs: 3 waiting"


def test_results_with_the_planned_keys_are_done_and_others_are_stale(tiny, study, write_results):
    write_results(study)
    (study.folder / "leaderboard").mkdir()
    (study.folder / "leaderboard/leaderboard.md").touch()
    assert status_text(study).splitlines() == [
        "tiny: 3 runs: 3 done",
        "",
        "The leaderboard: results/tiny/leaderboard/leaderboard.md",
    ]
    tiny["losses"] = {"proxy_anchor": {"alpha": 16}}
    changed = check_study(tiny, "tiny")
    assert states(changed) == {ONE: "stale", TWO: "done", CONTROL: "done"}
    assert "1 waiting, with a result from other settings or code" in status_text(changed)
    assert "The leaderboard (outdated): " in status_text(changed)


def test_a_training_without_scores_under_its_key_is_unscored(tiny, study, write_results):
    write_results(study, ONE, stage="run.json")
    write_results(study, TWO)
    assert states(study) == {ONE: "unscored", TWO: "done", CONTROL: "waiting"}
    tiny["evaluation"] = {"recall_at": [3]}
    assert states(check_study(tiny, "tiny"))[TWO] == "unscored"


@pytest.mark.parametrize("stage", ["run.json", "metrics.json", "failed.json"])
def test_a_failed_run_shows_its_reason_before_and_after_the_verdict(study, write_results, stage):
    write_results(study, ONE, status="diverged", stage=stage.replace("failed", "metrics"))
    if stage == "failed.json":
        folder = study.folder / "runs" / ONE
        (folder / "metrics.json").rename(folder / "failed.json")
        (folder / "run.json").unlink()
    assert states(study)[ONE] == "failed"
    assert f"{ONE}  diverged: it is diverged" in status_text(study)


def test_a_run_whose_scoring_failed_is_failed_although_its_training_is_there(study, write_results):
    write_results(study, ONE, status="error")
    folder = study.folder / "runs" / ONE
    (folder / "metrics.json").rename(folder / "failed.json")
    write_results(study, ONE, stage="run.json")
    assert states(study)[ONE] == "failed"


def test_a_held_lock_means_running_whatever_else_is_there(study, write_results, write_attempt):
    write_results(study)
    lock = write_attempt(study, ONE, step=150, steps=400)
    with lock.open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert states(study)[ONE] == "running"
        lines = status_text(study).splitlines()
    assert lines[0] == "tiny: 3 runs: 2 done, 1 running"
    assert lines[1] in ("about 30 s left, 1 at a time", "about 29 s left, 1 at a time")
    _, step, loss, rate, *_, device, host = lines[4].split()
    assert (step, loss, rate, device) == ("150/400", "0.5", "480", "cpu")
    assert host == os.uname().nodename
    assert states(study)[ONE] == "done"


def test_a_training_before_its_first_step_starts(study):
    folder = study.folder / "state" / ONE
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert f"{ONE}  starts" in status_text(study)
    assert states(study)[ONE] == "waiting"


def test_a_free_lock_on_this_machine_means_killed_or_stopped(study, write_attempt):
    write_attempt(study, ONE, step=150, steps=400)
    write_attempt(study, TWO, ended="timeout")
    assert states(study) == {ONE: "dead", TWO: "stopped", CONTROL: "waiting"}
    assert f"{ONE}        killed at step 150 of 400" in status_text(study)
    assert f"{TWO}  stopped before its first step" in status_text(study)


def test_an_attempt_under_another_key_does_not_count(tiny, study, write_attempt):
    write_attempt(study, ONE, step=150, steps=400)
    tiny["losses"] = {"proxy_anchor": {"alpha": 16}}
    assert states(check_study(tiny, "tiny"))[ONE] == "waiting"


def test_a_free_lock_of_another_machine_means_running_until_it_is_quiet(study, write_attempt):
    write_attempt(study, ONE, host="node7", time=time.time() - 60, step=150, steps=400)
    write_attempt(study, TWO, host="node7", time=time.time() - 420, step=150, steps=400)
    assert states(study) == {ONE: "running", TWO: "silent", CONTROL: "waiting"}
    assert f"{TWO}  no sign from node7 for 7 min, at step 150 of 400" in status_text(study)


def test_attempts_without_progress_are_counted(study, write_attempt):
    file = write_attempt(study, ONE).with_name("attempts.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"idle": 1}))
    assert (
        f"{ONE}  killed before its first step  1 earlier attempt made no progress"
        in status_text(study)
    )


def test_the_time_left_counts_waiting_trainings_and_is_shared_by_running_ones(
    tiny, study, write_results, write_attempt
):
    tiny["plan"]["seeds"] = [0, 1, 2]
    study = check_study(tiny, "tiny")
    write_results(study, ONE)  # a minute
    assert "about 5 min of training left, one at a time; none is running" in status_text(study)
    with contextlib.ExitStack() as held:
        for path in (TWO, TWO.replace("seed0", "seed1")):  # half a minute left
            holder = held.enter_context(write_attempt(study, path, step=1, steps=9).open("w"))
            fcntl.flock(holder, fcntl.LOCK_EX)
        assert "about 2 min left, 2 at a time" in status_text(study)


def test_watching_ends_when_all_runs_have_finished(study, write_results, capsys):
    write_results(study, ONE, status="diverged")
    late = threading.Timer(0.3, write_results, (study, TWO, CONTROL))
    late.start()
    show_status(study, interval=0.05)
    late.join()
    outputs = capsys.readouterr().out.split("tiny: 3 runs: ")
    assert outputs[1].startswith("2 waiting, 1 failed")
    assert outputs[-1].startswith("2 done, 1 failed")


ERASED_LINE = b"\033[2K"


def test_on_a_terminal_it_is_redrawn_in_place_and_ctrl_c_ends_it_quietly(study, tiny):
    study.folder.mkdir(parents=True)
    (study.folder / "study.json").write_text(json.dumps(tiny))
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "dmlbench", "status", "tiny", "--watch", "0.1"]
    process = subprocess.Popen(command, stdout=terminal, stderr=subprocess.PIPE)
    drawn = b""
    while drawn.count(ERASED_LINE) < 3:
        drawn += os.read(master, 1000)
    process.send_signal(signal.SIGINT)
    assert (process.wait(30), process.stderr.read()) == (0, b"")
    assert drawn.count(b"tiny: 3 runs: 3 waiting") >= 3


def test_a_study_is_found_by_its_file_its_name_or_its_results(study, tiny):
    study.folder.mkdir(parents=True)
    (study.folder / "study.json").write_text(json.dumps(tiny))
    for named in ("tiny", "results/tiny", "results/tiny/study.json"):
        assert read_study(named).runs.keys() == study.runs.keys()
    with pytest.raises(StudyError, match=r"there is no such file\. Studies with .* here: tiny\."):
        read_study("tinny")


def test_status_and_plan_import_no_torch():
    code = (
        "import sys\n"
        "import dmlbench.cli.main, dmlbench.planning.report, dmlbench.planning.throughput\n"
        "import dmlbench.study.study, dmlbench.workflow.status\n"
        "print({'torch', 'pandas', 'mlflow', 'PIL'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
