"""Two processes never work on one study."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dmlbench.study.study import check_study
from dmlbench.utils.errors import StudyError
from dmlbench.workflow import study_lock
from dmlbench.workflow.study_lock import lock_study

ROOT = Path(__file__).parents[2]
HOLD = """
import json, sys
from dmlbench.study.study import check_study
from dmlbench.workflow.study_lock import lock_study
lock_study(check_study(json.loads(sys.argv[1]), "tiny"))
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def release():
    """A function that unlocks the study; it is also called after each test."""

    def close_locks():
        while study_lock._locks:
            study_lock._locks.pop().close()

    yield close_locks
    close_locks()


@pytest.fixture
def holder(study, tiny):
    """Another process that holds the lock of the study."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, json.dumps(tiny)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_and_told_who_works_on_the_study(study, holder):
    with pytest.raises(StudyError) as refused:
        lock_study(study)
    message = str(refused.value)
    assert f"process {holder.pid} on {os.uname().nodename}, since " in message
    assert "works on it: wait for it, or stop it." in message


def test_the_lock_of_a_killed_process_is_free(study, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock_study(study)
    assert study.files.lock.read_text().startswith(f"process {os.getpid()} on ")


def test_the_settings_are_written_once_and_again_when_they_change(study, tiny, release):
    lock_study(study)
    settings = study.settings.model_dump(mode="json")
    assert json.loads(study.files.snapshot.read_text()) == settings
    before = study.files.snapshot.stat()
    release()
    lock_study(study)
    after = study.files.snapshot.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    release()
    tiny["recipe"]["epochs"] = 2
    lock_study(check_study(tiny, "tiny"))
    assert json.loads(study.files.snapshot.read_text())["recipe"]["epochs"] == 2


def test_a_folder_that_cannot_be_created_is_an_error_of_the_study(study):
    Path("results").write_text("a file")
    with pytest.raises(
        StudyError, match=r"results/tiny.*\n.*cannot be created .*: rename the study"
    ):
        lock_study(study)
