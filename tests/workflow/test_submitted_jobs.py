"""Where a job is: in the queue, on a node, or gone. The scheduler is asked, and may not answer."""

import json
import os
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from dmlbench.workflow.conclusion import find_holes
from dmlbench.workflow.scheduler import COLUMNS, SEPARATOR
from dmlbench.workflow.status import format_statuses, read_statuses

RUN = "letters/tiny/proxy_anchor/seed0"


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Let squeue answer with these jobs, as (number, state); with None it fails."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def answer(*jobs):
        lines = [
            SEPARATOR.join([number, state, "", "dmlbench-tiny_1", "/x"]) for number, state in jobs
        ]
        (folder / "answer").write_text("".join(f"{line}\n" for line in lines))
        script = f'#!/bin/sh\necho "$@" > {folder}/arguments\ncat {folder}/answer\n'
        (folder / "squeue").write_text(script)
        (folder / "squeue").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return folder / "arguments"

    return answer


def note(study, path, job):
    """Snakemake's note that `job` makes the result of a run."""
    name = urlsafe_b64encode(str(study.files.run(path).run).encode()).decode()
    cut = [f"@{name[:40]}", name[40:]]  # Snakemake cuts names that are too long for a file
    file = Path(".snakemake/incomplete", *cut)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"external_jobid": job}))


def states(study):
    return {status.run.path: status.state for status in read_statuses(study)}


def test_a_trainer_on_another_machine_is_dead_as_soon_as_its_job_is_gone(
    study, squeue, write_attempt
):
    write_attempt(study, RUN, host="node7", job="slurm:17", step=5, steps=10)
    assert states(study)[RUN] == "running"  # nobody knows better
    squeue(("17", "RUNNING"), ("18", "PENDING"))
    assert states(study)[RUN] == "running"
    squeue(("17", "PENDING"))  # put into the queue again
    assert states(study)[RUN] == "dead"
    squeue(("18", "RUNNING"))
    assert states(study)[RUN] == "dead"


def test_a_silent_trainer_runs_if_its_job_does(study, squeue, write_attempt):
    write_attempt(study, RUN, host="node7", job="slurm:17", step=5, steps=10, time=1e9)
    assert states(study)[RUN] == "silent"
    squeue(("17", "RUNNING"))
    assert states(study)[RUN] == "running"


def test_a_scheduler_that_fails_changes_nothing(study, squeue, write_attempt):
    write_attempt(study, RUN, host="node7", job="slurm:17", step=5, steps=10)
    arguments = squeue()
    note(study, "letters/tiny/control_random/seed0", "20")
    arguments.with_name("squeue").write_text("#!/bin/sh\nexit 1\n")
    assert states(study)[RUN] == "running"
    assert states(study)["letters/tiny/control_random/seed0"] == "waiting"


def test_a_job_in_the_queue_is_queued_and_one_without_a_trainer_starts(study, squeue):
    note(study, RUN, "20")
    assert states(study)[RUN] == "waiting"  # there is no scheduler
    squeue(("20", "PENDING"))
    assert states(study)[RUN] == "queued"
    assert "1 queued" in format_statuses(study, read_statuses(study))[0]
    squeue(("20", "RUNNING"))
    assert states(study)[RUN] == "starting"
    assert states(study)["letters/tiny/normalized_softmax/seed0"] == "waiting"


def test_a_stopped_training_whose_next_job_waits_is_queued(study, squeue, write_attempt):
    write_attempt(study, RUN, host="node7", job="slurm:17", ended="stopped", step=5, steps=10)
    note(study, RUN, "20")
    squeue(("20", "PENDING"))
    assert states(study)[RUN] == "queued"


@pytest.mark.parametrize("job", ["20", None])
def test_a_job_that_ended_before_its_training_began_does_not_wait(study, squeue, job):
    note(study, RUN, job)
    squeue()
    (status,) = [status for status in read_statuses(study) if status.run.path == RUN]
    assert (status.state, status.reason) == ("dead", "its job ended before the training began")
    text = "\n".join(format_statuses(study, [status]))
    assert f"{RUN}  its job ended before the training began" in text


def test_the_scheduler_is_asked_once_for_all_runs(study, squeue):
    arguments = squeue(("20", "RUNNING"))
    counter = arguments.with_name("squeue")
    counter.write_text(counter.read_text().replace("echo", "echo x >> count; echo"))
    read_statuses(study)
    assert Path("count").read_text() == "x\n"
    text = arguments.read_text().strip()
    assert text == f"--noheader --user={os.getuid()} --format={SEPARATOR.join(COLUMNS)}"


def test_a_job_that_ended_before_its_training_began_is_a_hole_with_its_reason(study, squeue):
    note(study, RUN, "20")
    squeue()
    holes = find_holes(study, Path("data"))
    assert holes[RUN] == ("lost", "its job ended without a result, before the training began")
