"""What SLURM says, by its commands; "not known" if it does not answer."""

import os
from pathlib import Path

import pytest

from dmlbench.workflow import scheduler
from dmlbench.workflow.scheduler import SEPARATOR, cancel, read_jobs, status_command


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Put a command in front of PATH that does what a script says."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def write(name, script):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    return write


def line(*cells):
    return SEPARATOR.join(cells)


def test_the_jobs_of_this_user_are_read_with_their_study_and_folder(command, tmp_path):
    rows = [
        line("7", "RUNNING", "None", "dmlbench-cub_12-34", "/home/me/a study|1"),
        line("8", "PENDING", "launch failed requeued held", "dmlbench-a-b_12-34", "/home/me"),
    ]
    (tmp_path / "answer").write_text("".join(f"{row}\n" for row in rows))
    command("squeue", f"cat {tmp_path}/answer")
    running, pending = read_jobs()
    assert (running.number, running.prefix, running.is_pending) == ("7", "dmlbench-cub", False)
    assert running.folder == Path("/home/me/a study|1")
    assert (pending.prefix, pending.is_pending) == ("dmlbench-a-b", True)
    assert (running.is_held_for_ever, pending.is_held_for_ever) == (False, True)


def test_an_empty_queue_is_known(command):
    command("squeue", "true")
    assert read_jobs() == []


@pytest.mark.parametrize(
    "script",
    ["exit 1", "echo slurm_load_jobs error: Unable to contact slurm controller", "exec sleep 60"],
    ids=["fails", "message", "silent"],
)
def test_a_scheduler_that_does_not_answer_is_not_an_empty_queue(command, script):
    command("squeue", script)
    assert read_jobs(patience=0.5) is None


def test_without_slurm_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not scheduler.has_scheduler()
    assert read_jobs() is None
    assert status_command() is None
    assert not cancel(scheduler.parse_jobs(line("7", "RUNNING", "None", "a_b", "/x")))


@pytest.mark.parametrize(
    ("age", "kind", "expected"),
    [
        (300, "accounting_storage/none", "squeue"),
        (300, "accounting_storage/slurmdbd", "squeue"),
        (30, "accounting_storage/slurmdbd", "sacct"),
        (30, "accounting_storage/none", "squeue"),
        (30, "(null)", "squeue"),
    ],
)
def test_sacct_is_asked_only_where_squeue_forgets_and_there_are_accounts(
    command, age, kind, expected
):
    lines = f"AccountingStorageType   = {kind}\\nMinJobAge               = {age} sec\\n"
    command("scontrol", f"printf '{lines}'")
    assert status_command() == expected


def test_many_jobs_are_cancelled_by_a_few_calls(command, tmp_path):
    command("scancel", f"echo $# >> {tmp_path}/counts")
    jobs = [scheduler.ClusterJob(str(n), "RUNNING", "None", "x", tmp_path) for n in range(1200)]
    assert cancel(jobs)
    assert (tmp_path / "counts").read_text().split() == ["500", "500", "200"]
