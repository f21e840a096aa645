"""A Snakemake is started, stopped, and seen to wait in vain."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dmlbench.workflow import snakemake_process
from dmlbench.workflow.snakemake_process import ForgottenJobs, SnakemakeProcess


class Silent:
    """A Snakemake that does nothing, or what a test says."""

    message = 1.0
    works = False

    def last_message(self):
        return self.message

    def is_working(self, seconds):
        return self.works


@pytest.fixture
def clock(monkeypatch):
    """The time, in a list: tests move it."""
    now = [1000.0]
    monkeypatch.setattr(snakemake_process.time, "monotonic", lambda: now[0])
    return now


def look(forgotten, clock, snakemake, *queues):
    """What it says after a minute with each of the queues."""
    answers = []
    for queue in queues:
        clock[0] += 60
        answers.append(forgotten.look(snakemake, queue))
    return answers


def test_jobs_that_left_the_queue_unnoticed_are_forgotten(clock):
    queues = ({"1", "2"}, {"1"}, set(), set(), set())
    answers = look(ForgottenJobs(150), clock, Silent(), *queues)
    assert answers == [False, False, False, False, True]


def test_jobs_in_the_queue_are_waited_for_however_long_they_take(clock):
    queues = ({"1", "2"}, *[{"1"}] * 50)
    assert not any(look(ForgottenJobs(150), clock, Silent(), *queues))


def test_nothing_is_forgotten_while_the_scheduler_does_not_answer(clock):
    assert not any(look(ForgottenJobs(150), clock, Silent(), {"1"}, *[None] * 50))


def test_a_snakemake_that_says_something_or_works_has_not_forgotten(clock):
    forgotten, snakemake = ForgottenJobs(150), Silent()
    look(forgotten, clock, snakemake, {"1"})
    for _ in range(20):
        snakemake.message += 1
        assert look(forgotten, clock, snakemake, set()) == [False]
    snakemake.works = True
    assert not any(look(forgotten, clock, snakemake, *[set()] * 20))
    snakemake.works = False
    assert look(forgotten, clock, snakemake, *[set()] * 4)[-1]


def start(tmp_path, code):
    log = tmp_path / "log"
    with log.open("ab") as output:
        process = SnakemakeProcess.start([sys.executable, "-c", code], output)
    return process, log


def wait(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_sigint_reaches_it_and_its_local_jobs_even_where_this_process_ignores_it(tmp_path):
    code = (
        "import subprocess, sys; from dmlbench.workflow.snakemake_process import SnakemakeProcess\n"
        "import signal; signal.signal(signal.SIGINT, lambda *_: None)\n"
        "child = 'import subprocess, sys; subprocess.run([sys.executable, sys.argv[1]])'\n"
        "process = SnakemakeProcess.start([sys.executable, '-c', child, sys.argv[1]], sys.stdout)\n"
        "sys.stdin.readline()\nprocess.interrupt()\n"
        "while not process.has_ended(): pass\n"
    )
    job = tmp_path / "job.py"
    ready = tmp_path / "ready"
    job.write_text(
        "import pathlib, sys, time\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "try: time.sleep(60)\nexcept KeyboardInterrupt: print('saved', flush=True)\n"
    )
    ignore = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    process = subprocess.Popen(
        [*ignore, sys.executable, "-c", code, str(job)], stdin=-1, stdout=-1, stderr=-1, text=True
    )
    wait(ready.exists)
    output, _ = process.communicate("go\n", timeout=20)
    assert output.splitlines()[0] == "saved"


def test_it_works_while_it_computes_or_has_a_local_job(tmp_path):
    process, _ = start(tmp_path, "import time; time.sleep(60)")
    process.is_working(1)
    assert not process.is_working(1)
    process.interrupt(signal.SIGKILL)
    wait(process.has_ended)
    assert process.exit_code == -signal.SIGKILL
    process, _ = start(tmp_path, "import subprocess; subprocess.run(['sleep', '60'])")
    wait(lambda: process.is_working(1000))
    process.interrupt(signal.SIGKILL)
    wait(process.has_ended)


def test_its_last_message_is_the_change_of_its_own_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = (
        "import os, time\n"
        "os.makedirs('.snakemake/log')\n"
        "log = open('.snakemake/log/now.snakemake.log', 'w'); log.write('x'); log.flush()\n"
        "time.sleep(60)\n"
    )
    process, _ = start(tmp_path, code)
    log = tmp_path / ".snakemake/log/now.snakemake.log"
    wait(lambda: log.exists() and log.stat().st_size)
    os.utime(log, (5000, 5000))
    wait(lambda: process.last_message() == 5000)
    process.interrupt(signal.SIGKILL)
    wait(process.has_ended)
    assert process.last_message() == 0


def test_a_process_that_is_not_a_child_is_watched_too(tmp_path):
    child = subprocess.Popen(["sleep", "60"])
    process = SnakemakeProcess(child.pid)
    assert not process.has_ended()
    process.interrupt()
    wait(process.has_ended)
    assert process.exit_code is None
    child.wait()
    assert SnakemakeProcess(child.pid).has_ended()
