"""The job of a process, its end, and how an earlier one ended."""

import time

import pytest

from dmlbench.utils.cluster_job import current_job, job_end, job_state
from dmlbench.utils.errors import WrongEnvironment


@pytest.fixture
def slurm(tmp_path):
    """An environment in which the commands of SLURM print what the test says."""

    def make(**answers):
        for command, answer in answers.items():
            file = tmp_path / command
            file.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {tmp_path}/calls\n{answer}\n')
            file.chmod(0o755)
        return {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17"}

    return make


@pytest.mark.parametrize(
    ("environ", "job"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "17"}, "slurm:17"),
        ({"PBS_JOBID": "8.head"}, "pbs:8.head"),
        ({"LSB_JOBID": "9"}, "lsf:9"),
        ({"JOB_ID": "4", "SGE_O_HOST": "head"}, "sge:4"),
        ({"JOB_ID": "4"}, None),
    ],
)
def test_the_scheduler_is_known_by_its_variables(environ, job):
    assert current_job(environ) == job


@pytest.mark.parametrize(
    ("left", "seconds"),
    [("12:34", 754), ("1:00:00", 3600), ("2-03:00:30", 183_630), ("0:00", 0)],
)
def test_slurm_is_asked_when_the_job_ends(slurm, tmp_path, left, seconds):
    end = job_end(slurm(squeue=f"echo {left}"))
    assert end == pytest.approx(time.time() + seconds, abs=5)
    assert (tmp_path / "calls").read_text() == "-h -j 17 -o %L\n"


@pytest.mark.parametrize("answer", ["echo UNLIMITED", "echo INVALID", "true", "echo 1:00; exit 1"])
def test_an_answer_that_is_no_time_is_no_end(slurm, answer):
    assert job_end(slurm(squeue=answer)) is None


def test_without_slurm_there_is_no_end(tmp_path):
    assert job_end({"PATH": str(tmp_path), "SLURM_JOB_ID": "17"}) is None


def test_a_variable_that_says_the_end_is_asked_first(slurm):
    environ = slurm(squeue="echo 1:00") | {"SLURM_JOB_END_TIME": "2000000000"}
    assert job_end(environ) == 2_000_000_000
    assert job_end(environ | {"DMLBENCH_JOB_END": "1900000000.5"}) == 1_900_000_000.5


@pytest.mark.parametrize("value", ["tomorrow", "-1", "nan", "1e99", "12:00"])
def test_an_end_that_is_no_time_is_refused(value):
    with pytest.raises(WrongEnvironment, match=f"^DMLBENCH_JOB_END={value}: It is the time when"):
        job_end({"DMLBENCH_JOB_END": value})


def test_slurm_says_how_a_job_ended(slurm):
    environ = slurm(scontrol="echo JobId=3 JobName=x JobState=OUT_OF_MEMORY Reason=None")
    assert job_state("slurm:3", environ) == "OUT_OF_MEMORY"
    assert job_state("pbs:3", environ) is None


def test_accounting_is_asked_for_a_job_that_slurm_has_forgotten(slurm, tmp_path):
    environ = slurm(scontrol="exit 1", sacct="echo CANCELLED by 0")
    assert job_state("slurm:3", environ) == "CANCELLED"
    assert (tmp_path / "calls").read_text().endswith("-n -X -P -j 3 -o State\n")


def test_a_job_of_which_nobody_knows_has_no_state(slurm):
    assert job_state("slurm:3", slurm(scontrol="exit 1", sacct="exit 1")) is None
    assert job_state("slurm:3; reboot", slurm(scontrol="echo JobState=FAILED")) is None
