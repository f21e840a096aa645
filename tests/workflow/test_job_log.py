"""The end of a job's log says how the job ended."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dmlbench.utils.errors import UserError
from dmlbench.utils.log_lines import ATTEMPT
from dmlbench.workflow.job_log import has_succeeded, last_words, log_ending, read_failure

ROOT = Path(__file__).parents[2]


def end(capsys, tmp_path, error):
    """The log of a job that raises `error`, and its exit code."""
    code = 0
    try:
        with log_ending():
            print("works")
            if error:
                raise error
    except SystemExit as ended:
        code = ended.code
    captured = capsys.readouterr()
    log = tmp_path / "log"
    log.write_text(captured.out + captured.err)
    return log, code


@pytest.mark.parametrize("error", [None, SystemExit(0), SystemExit(None)])
def test_a_job_that_succeeded_says_so(capsys, tmp_path, error):
    log, code = end(capsys, tmp_path, error)
    assert code == 0
    assert log.read_text() == "works\ndmlbench: done\n"
    assert has_succeeded(log)
    assert read_failure(log) is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UserError("no a.zip\n    Put it there."), "no a.zip\n    Put it there."),
        (KeyError("seed"), "KeyError: 'seed'"),
        (KeyboardInterrupt(), "stopped"),
    ],
)
def test_a_job_that_failed_says_why_in_all_its_lines(capsys, tmp_path, error, reason):
    log, code = end(capsys, tmp_path, error)
    assert code == 1
    assert read_failure(log) == reason
    assert not has_succeeded(log)
    assert ("Traceback" in log.read_text()) == isinstance(error, KeyError)


def test_a_full_disk_is_said_in_one_line_whatever_raised_the_error(capsys, tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "table.csv"))
    log, code = end(capsys, tmp_path, full)
    assert code == 1
    assert read_failure(log).startswith(f"{tmp_path}: the disk is full (No space left on device; ")
    assert "Traceback" not in log.read_text()


def test_only_the_last_attempt_of_a_training_counts(tmp_path):
    log = tmp_path / "log"
    log.write_text(f"{ATTEMPT} of Monday\nepoch 1\ndmlbench: the key is another\n")
    assert read_failure(log) == "the key is another"
    log.write_text(f"{log.read_text()}{ATTEMPT} of Tuesday\nepoch 2\n")
    assert read_failure(log) is None
    assert last_words(log) == "epoch 2"
    log.write_text(f"{log.read_text()}{ATTEMPT} of Wednesday\n")
    assert last_words(log) == ""


def test_a_job_that_was_killed_says_neither(tmp_path):
    log = tmp_path / "log"
    log.write_text("dmlbench packs images\n20 of 80\n\n")
    assert not has_succeeded(log)
    assert read_failure(log) is None
    assert last_words(log) == "20 of 80"
    assert last_words(tmp_path / "none") == ""


def test_only_the_last_message_of_a_long_log_counts(tmp_path):
    log = tmp_path / "log"
    log.write_text("dmlbench: old\n" + "many lines\n" * 20_000 + "dmlbench: new\n")
    assert read_failure(log) == "new"


def test_commands_end_their_log_if_they_are_jobs(tmp_path):
    command = [sys.executable, "-m", "dmlbench", "--job", "weights", "resnet5"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "dmlbench: timm has no model 'resnet5'. Did you mean 'resnet50'?\n"
    command[4:] = ["schema", "--output", "schema.json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "dmlbench: done\n")
