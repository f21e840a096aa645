"""No output is removed by Snakemake, and no job that says why it failed is tried again."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.common import get_input_function_aux_params
from snakemake.resources import Resource

from dmlbench.workflow import snakemake_jobs
from dmlbench.workflow.snakemake_jobs import (
    _useful_retries,
    _useful_retries_of_group,
    has_failed,
    was_left_out,
)
from tests.small_disk import KB, small_disk

ROOT = Path(__file__).parents[2]
SNAKEFILE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from dmlbench.workflow.snakemake_jobs import adapt_jobs
adapt_jobs()

rule all:
    input: "shared", "old", "died", "said", "works"

rule waits:  # another process makes its output meanwhile, and then it is killed
    output: "shared"
    log: "waits.log"
    retries: 0
    shell: "echo x >> waits.count; echo whole > {{output}}; kill -9 $$"

rule renews:  # its output is of an earlier call, and it is killed before it replaces it
    input: "source"
    output: "old"
    log: "renews.log"
    retries: 0
    shell: "echo x >> renews.count; kill -9 $$"

rule dies:
    output: "died"
    log: "dies.log"
    shell: "echo x >> dies.count; echo step 7 > {{log}}; kill -9 $$"

rule says_why:
    output: "said"
    log: "says.log"
    shell: "echo x >> says.count; echo dmlbench: the key is another > {{log}}; exit 1"

rule works:
    output: "works"
    log: "works.log"
    shell: "echo x >> works.count; echo whole > {{output}}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which a call has ended with failed jobs."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "old").write_text("of an earlier call")
    (folder / "source").write_text("newer")
    # of an earlier call too: it says nothing about this one
    (folder / "dies.log").write_text("dmlbench: the disk is full\n")
    call(folder)
    return folder


def call(folder, *arguments):
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--keep-going", "--nolock"]
    command += ["--retries", "2", "--rerun-incomplete", *arguments]
    output = subprocess.run(command, cwd=folder, text=True, stdout=-1, stderr=-2, check=False)
    return output.stdout


def attempts(folder, rule):
    return len((folder / f"{rule}.count").read_text().split())


def test_the_output_that_another_process_made_stays_when_the_waiting_job_is_killed(folder):
    assert (folder / "shared").read_text() == "whole\n"


def test_an_old_output_stays_until_it_is_replaced(folder):
    assert (folder / "old").read_text() == "of an earlier call"


def test_a_job_that_was_killed_is_tried_again_and_one_that_says_why_it_failed_is_not(folder):
    assert attempts(folder, "dies") == 3
    assert attempts(folder, "says") == 1
    assert attempts(folder, "works") == 1


def test_the_next_call_runs_what_is_missing_or_old_and_not_what_another_process_made(folder):
    output = call(folder, "--dry-run", "--rerun-triggers", "mtime")
    planned = {line.split()[0] for line in output.splitlines() if line.endswith(" 1")}
    assert planned == {"all", "renews", "dies", "says_why"}


def test_a_group_is_not_tried_again_if_one_of_its_jobs_says_why_it_failed(tmp_path):
    train, evaluate = (tmp_path / name for name in ("train.log", "evaluate.log"))
    train.write_text("step 7\n")
    retries = {train: 10, evaluate: 0}
    jobs = [
        SimpleNamespace(log=[str(log)], rule=SimpleNamespace(restart_times=retries[log]))
        for log in retries
    ]
    group = SimpleNamespace(jobs=jobs)
    assert _useful_retries_of_group(group) == 10
    evaluate.write_text("dmlbench: no such protocol\n")
    assert _useful_retries_of_group(group) == 0
    before = evaluate.stat().st_mtime - 1e6  # of an earlier call
    os.utime(evaluate, (before, before))
    assert _useful_retries_of_group(group) == 10
    evaluate.write_text("dmlbench: stopped\n")
    assert _useful_retries_of_group(group) == 10


def test_a_job_whose_log_is_on_a_full_disk_is_not_tried_again(tmp_path):
    with small_disk(tmp_path / "disk", 4096 * KB) as disk:
        log = disk.folder / "log.txt"
        log.touch()
        job = SimpleNamespace(log=[str(log)], rule=SimpleNamespace(restart_times=10))
        assert _useful_retries(job) == 10
        disk.fill()
        assert _useful_retries(job) == 0


def workflow_after(failed=(), running=(), killed=None, unfinished=()):
    """What is asked of Snakemake's workflow when it ends."""
    scheduler = SimpleNamespace(failed={*failed}, running={*running}, _user_kill=killed)
    return SimpleNamespace(
        scheduler=scheduler, dag=SimpleNamespace(needrun_jobs=lambda: unfinished)
    )


def test_a_call_that_somebody_stopped_has_not_failed():
    assert has_failed(workflow_after(failed=["train"]))
    assert not has_failed(workflow_after())
    assert not has_failed(workflow_after(failed=["train"], running=["evaluate"]))  # Ctrl-C
    assert not has_failed(workflow_after(failed=["train"], killed="graceful"))  # SIGTERM


def test_a_job_was_left_out_if_it_was_planned_and_neither_finished_nor_failed():
    train, table = Planned("train"), Planned("build_leaderboard")
    assert was_left_out(workflow_after([train], unfinished=[train, table]), "build_leaderboard")
    assert not was_left_out(workflow_after([table], unfinished=[table]), "build_leaderboard")
    assert not was_left_out(workflow_after([train], unfinished=[train]), "build_leaderboard")


class Planned:
    def __init__(self, rule):
        self.rule = SimpleNamespace(name=rule)


def test_a_dry_run_formats_no_shell_command_that_it_does_not_show(monkeypatch):
    def command(dryrun, printshellcmds):
        output = SimpleNamespace(printshellcmds=printshellcmds)
        workflow = SimpleNamespace(dryrun=dryrun, output_settings=output)
        return snakemake_jobs._shown_command(
            SimpleNamespace(dag=SimpleNamespace(workflow=workflow))
        )

    monkeypatch.setattr(snakemake_jobs, "_shellcmd", property(lambda _: "python -m dmlbench"))
    assert command(dryrun=True, printshellcmds=False) is None
    assert command(dryrun=True, printshellcmds=True) == "python -m dmlbench"
    assert command(dryrun=False, printshellcmds=False) == "python -m dmlbench"


def test_a_resource_is_evaluated_with_the_arguments_that_its_function_takes():
    snakemake_jobs._look_up_parameters_once()

    def megabytes(wildcards, attempt):
        return 100 * attempt

    resource = Resource("mem_mb", megabytes)
    aux = {"attempt": 3, "input": [], "threads": 1}
    assert get_input_function_aux_params(resource.evaluate, aux) == aux  # as without the shortcut
    assert resource.evaluate(None, **aux).value == 300


SLEEPERS = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from dmlbench.workflow.snakemake_jobs import adapt_jobs
from snakemake.scheduling.job_scheduler import JobScheduler
adapt_jobs()
select = JobScheduler.job_selector

def counted(scheduler, jobs):
    with open("looks", "a") as file:
        file.write("x")
    return select(scheduler, jobs)

JobScheduler.job_selector = counted

rule all:
    input: "first", "second", "third"

rule sleeps:
    output: "{{name}}"
    shell: "sleep 3; touch {{output}}"
"""


def test_ready_jobs_are_looked_at_when_one_ends_and_not_every_second(tmp_path):
    (tmp_path / "Snakefile").write_text(SLEEPERS)
    call(tmp_path)
    assert (tmp_path / "third").is_file()
    assert len((tmp_path / "looks").read_text()) <= 5  # at the start, and as each of the four ends


def test_jobs_that_the_limit_of_jobs_per_second_holds_back_are_looked_at_again(tmp_path):
    (tmp_path / "Snakefile").write_text(SLEEPERS)
    call(tmp_path, "--cores", "3", "--max-jobs-per-timespan", "1/1s")
    assert (tmp_path / "third").is_file()
    ended = [(tmp_path / name).stat().st_mtime for name in ("first", "second", "third")]
    assert max(ended) - min(ended) < 6  # side by side
