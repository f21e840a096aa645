"""The supervisor starts Snakemake until the study is complete, or until that is no use.

Snakemake is a script here; tests/cluster has the real one, on a real SLURM.
"""

import errno
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dmlbench.workflow import scheduler, supervisor
from dmlbench.workflow.driver import DriverFile
from dmlbench.workflow.scheduler import ClusterJob
from dmlbench.workflow.supervisor import Supervisor, job_prefix

RUN = "letters/tiny/proxy_anchor/seed0"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name in ("TICK", "POLL", "FIRST_PAUSE"):
        monkeypatch.setattr(supervisor, name, 0.01)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0.02)


@pytest.fixture
def supervise(study, monkeypatch, tmp_path):
    """Run a supervisor whose n-th Snakemake is the n-th script; the last one is repeated."""

    def run(*scripts, on_slurm=False, orphans="default", before=()):
        commands = []

        def command(file, arguments):
            commands.append(arguments)
            script = scripts[min(len(commands), len(scripts)) - 1]
            if callable(script):
                script = script() or FAILS
            return [sys.executable, "-c", script]

        monkeypatch.setattr(supervisor, "snakemake_command", command)
        log, file = tmp_path / "submit.log", tmp_path / "driver.json"
        with log.open("ab") as output, file.open("w+") as stream:
            driver_file = DriverFile(stream, log)
            supervised = Supervisor(study, "x", ["-q"], on_slurm, orphans, driver_file, output)
            code = supervised.run()
        return code, log.read_text(), commands

    return run


FAILS = "raise SystemExit(1)"


def test_a_study_that_is_complete_ends_with_0_and_a_summary(study, supervise, write_results):
    write_results(study)
    code, log, commands = supervise("print('Nothing to be done')")
    assert code == 0
    assert commands == [["-q", "--rerun-incomplete"]]
    assert "Nothing to be done" in log
    assert "dmlbench submit: tiny: 3 runs: 3 done" in log
    assert "Finished trainings used 0.05 CPU-hours." in log  # a minute each


def test_it_gives_up_after_six_starts_that_got_no_further(supervise):
    code, log, commands = supervise(FAILS)
    assert code == 2
    assert len(commands) == 6
    assert log.count("Snakemake ended with exit code 1, and the study is not complete") == 5
    assert "gave up: 6 starts in a row got the study no further" in log


def test_progress_is_answered_with_six_more_starts(study, supervise, write_results):
    paths = [*study.runs]

    def finish_one():
        write_results(study, paths[0])

    code, _, commands = supervise(FAILS, FAILS, FAILS, finish_one, FAILS)
    assert code == 2
    assert len(commands) == 4 + 6


def test_runs_that_failed_with_a_result_are_not_repeated(study, supervise, write_results):
    def fail():
        write_results(study, *[path for path in study.runs if path != RUN])
        write_results(study, RUN, status="diverged")

    code, log, commands = supervise(fail)
    assert (code, len(commands)) == (1, 1)
    assert "diverged: it is diverged" in log


def test_a_failure_that_only_a_log_tells_is_tried_twice(study, supervise, write_results):
    def break_node():
        write_results(study, *[path for path in study.runs if path != RUN])
        log = study.files.run(RUN).train_log
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("dmlbench: torch cannot compute on the GPU\n")

    code, log, commands = supervise(break_node, FAILS)
    assert (code, len(commands)) == (1, 2)
    assert "torch cannot compute on the GPU" in log


def test_sigint_stops_snakemake_by_sigint_and_ends_with_130(supervise):
    script = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('interrupted')\n"
    timer = threading.Timer(1.5, signal.raise_signal, [signal.SIGINT])
    timer.start()
    code, log, _ = supervise(script)
    assert code == 130
    assert log.index("stops Snakemake") < log.index("interrupted") < log.index("3 waiting")


def test_a_snakemake_that_does_not_end_is_killed(supervise, monkeypatch):
    monkeypatch.setattr(supervisor, "STOP_PATIENCE", 0.5)
    script = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    threading.Timer(1.5, signal.raise_signal, [signal.SIGTERM]).start()
    code, log, _ = supervise(script)
    assert code == 130
    assert "Snakemake did not end: kills it" in log


@pytest.fixture
def queue(monkeypatch, study):
    """The scheduler's queue: what a test puts there; cancelled jobs leave it."""
    jobs, cancelled = {}, []

    def add(number, state, prefix="dmlbench-tiny", folder=None, reason="None"):
        here = Path.cwd().resolve()
        jobs[number] = ClusterJob(number, state, reason, f"{prefix}_1-2", folder or here)

    def cancel(doomed):
        for job in [*doomed]:
            cancelled.append(job.number)
            jobs.pop(job.number, None)
        return True

    def read_jobs(patience=0):
        answer = [*jobs.values()]
        for job in answer:  # a running job ends by the next question
            if job.state == "RUNNING":
                del jobs[job.number]
        return answer

    monkeypatch.setattr(scheduler, "read_jobs", read_jobs)
    monkeypatch.setattr(scheduler, "cancel", cancel)
    add.cancelled = cancelled
    add.jobs = jobs
    return add


def test_running_orphans_are_waited_for_and_pending_ones_are_cancelled(queue, supervise):
    queue("1", "RUNNING")
    queue("2", "PENDING")
    queue("3", "PENDING", prefix="dmlbench-other")
    queue("4", "PENDING", folder="/elsewhere")
    code, log, commands = supervise("", on_slurm=True)
    assert code == 0
    assert queue.cancelled == ["2"]
    assert "jobs of an earlier call: 1 running, 1 pending. Cancels 1" in log
    assert commands[0][-2:] == ["--slurm-jobname-prefix", "dmlbench-tiny"]


def test_all_orphans_are_cancelled_if_that_is_asked(queue, supervise):
    queue("1", "RUNNING")
    queue("2", "PENDING")
    supervise("", on_slurm=True, orphans="cancel")
    assert queue.cancelled == ["1", "2"]


def test_a_scheduler_that_is_away_is_waited_for(queue, supervise, monkeypatch):
    answers = iter([None, None])
    monkeypatch.setattr(scheduler, "read_jobs", lambda patience=0: next(answers, []))
    code, log, _ = supervise("", on_slurm=True)
    assert code == 0
    assert log.count("the scheduler does not answer: waits until it does") == 1


def test_a_job_that_slurm_holds_for_ever_is_cancelled(queue, supervise):
    def hold_two():
        queue("7", "PENDING", reason="launch failed requeued held")
        queue("8", "PENDING", reason="JobHeldUser")
        return "import time; time.sleep(1)"

    code, log, _ = supervise(hold_two, on_slurm=True)
    assert code == 0
    assert queue.cancelled == ["7"]
    assert "holds them: cancels 7" in log


def test_a_snakemake_without_a_driver_is_joined(study, supervise):
    study.folder.mkdir(parents=True)
    code = (
        "import sys, time; from dmlbench.study.study import check_study\n"
        "from dmlbench.workflow.study_lock import lock_study\n"
        "import json; lock_study(check_study(json.loads(sys.argv[1]), 'x'))\n"
        "print('locked', flush=True); time.sleep(1)\n"
    )
    settings = json.dumps(study.settings.model_dump(mode="json"))
    other = subprocess.Popen([sys.executable, "-c", code, settings], stdout=-1, text=True)
    other.stdout.readline()
    _, log, commands = supervise("")
    assert other.poll() == 0
    assert f"Snakemake already works on the study (process {other.pid}): joins it" in log
    assert len(commands) == 1


def test_names_of_jobs_are_short_and_differ_for_every_study():
    names = [job_prefix(name) for name in ("a", "a_b", "a.b", "a+b", "x" * 90, "x" * 91)]
    assert len({*names}) == len(names)
    assert all(len(name) <= 50 and name.replace("-", "").isalnum() for name in names)


def test_a_disk_that_fails_for_a_time_does_not_end_the_driver(supervise, monkeypatch):
    errors = iter([OSError(errno.ESTALE, "Stale file handle")])
    read = supervisor.read_statuses

    def read_or_fail(study, **options):
        for error in errors:
            raise error
        return read(study, **options)

    monkeypatch.setattr(supervisor, "read_statuses", read_or_fail)
    code, log, commands = supervise("")
    assert (code, len(commands)) == (0, 1)
    assert "the results cannot be read: [Errno 116] Stale file handle" in log
