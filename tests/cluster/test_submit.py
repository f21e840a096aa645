"""`dmlbench submit` on a real SLURM, with things going wrong.

Each time the study is completed, its embeddings are those of a local study that nobody disturbed,
bit for bit, and only the jobs that were interrupted ran again.
"""

import os
import signal

import numpy as np
import pytest

from ..project import Project, copy_project

LOSSES = ("normalized_softmax", "htl")
CELLS = 3
"""The losses, and a control."""
STEP = 10
"""A training that has come so far is interrupted."""


@pytest.fixture(scope="session")
def study(tiny_settings):
    """A study with two trainings of some seconds."""
    recipe = tiny_settings["recipe"] | {"epochs": 16}
    plan = tiny_settings["plan"] | {"losses": [*LOSSES]}
    # of the two trainings, each needs a node; the control fits beside one of them
    return tiny_settings | {"recipe": recipe, "plan": plan, "cluster": {"cores_per_gpu": 3}}


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, data_folder, study):
    """Embeddings of the study as it runs on this machine, by loss."""
    project = Project(copy_project(tmp_path_factory.mktemp("undisturbed") / "made"), data_folder)
    project.environment["DMLBENCH_DEVICE"] = "cpu"
    project.write(study)
    project.run()
    return {loss: project.embeddings(loss) for loss in LOSSES}


@pytest.fixture
def project(cluster_project, study, undisturbed):
    cluster_project.write(study)
    cluster_project.undisturbed = undisturbed
    return cluster_project


def check(project, driver, *, again, code=0):
    """Wait until the study is complete, and check it.

    Args:
        again: how many jobs may have run a second time.
    """
    assert driver.wait(400) == code, project.output
    for loss, embeddings in project.undisturbed.items():
        assert np.array_equal(project.embeddings(loss), embeddings), loss
    assert "3 runs: 3 done" in project.output
    jobs = [j for j in project.slurm.jobs().values() if j["WorkDir"] == str(project.folder)]
    began = [job for job in jobs if job["NodeList"] not in ("", "(null)")]
    facts = ("JobId", "JobState", "Reason", "NodeList", "StartTime", "EndTime", "Restarts")
    text = "\n".join(" ".join(job.get(name, "-") for name in facts) for job in jobs)
    assert CELLS <= len(began) <= CELLS + again, f"{text}\n{project.output}"
    assert project.jobs() == []
    assert not (project.folder / "results/tiny/driver.json").exists()


def job_of(project, loss):
    """The number of the job that trains `loss`."""
    path = f"results/tiny/state/letters/tiny/{loss}/seed0/attempts.json"
    return project.json(path)["job"].removeprefix("slurm:")


def wait_for_trainings(project, *losses):
    for loss in losses:
        project.wait_for(lambda loss=loss: project.progress(loss) >= STEP, f"{loss} trains")


def status(project):
    return project.dmlbench("status", "study.yaml")


def test_jobs_are_cancelled_and_a_node_is_drained(project):
    slurm = project.slurm
    slurm.call("scontrol", "update", "nodename=node2", "state=drain", "reason=test")
    try:
        driver = project.submit()
        (first,) = project.wait_for(
            lambda: [loss for loss in LOSSES if project.progress(loss) >= STEP], "one trains"
        )
        (pending,) = project.wait_for(lambda: project.jobs("PENDING"), "one waits")
        assert "1 running" in status(project)
        assert "queued" in status(project)
        slurm.call("scancel", pending)
        slurm.call("scancel", job_of(project, first))
    finally:
        slurm.call("scontrol", "update", "nodename=node2", "state=resume")
    check(project, driver, again=2)


def test_a_node_dies_and_the_daemon_of_another_one(project):
    slurm = project.slurm
    driver = project.submit()
    wait_for_trainings(project, *LOSSES)
    job = slurm.job(job_of(project, LOSSES[0]))
    dead = job["NodeList"]
    (other,) = {*slurm.nodes} - {dead}
    slurm.kill_node(dead)
    slurm.kill_slurmd(other)
    slurm.call("scontrol", "update", f"nodename={dead}", "state=down", "reason=test")
    slurm.start_node(other)
    slurm.start_node(dead)
    project.wait_for(lambda: hurry_requeued(project, job["JobId"]), "the job is in the queue again")
    check(project, driver, again=1)


def hurry_requeued(project, number):
    """Let a job that SLURM put into the queue again begin now, and not in two minutes."""
    if project.slurm.job(number)["JobState"] == "PENDING":
        project.slurm.call("scontrol", "update", f"jobid={number}", "starttime=now")
        return True
    return project.slurm.job(number)["JobState"] != "RUNNING"


def test_the_controller_is_away_and_refuses_jobs(project):
    slurm = project.slurm
    refusal = "echo 'sbatch: error: Slurm temporarily unable to accept job' >&2; exit 1"
    slurm.wrap("sbatch", refusal)
    driver = project.submit()
    project.wait_for(lambda: "starts it again" in project.output, "Snakemake gives up")
    slurm.wrap("sbatch")
    wait_for_trainings(project, *LOSSES)
    for client in ("squeue", "scontrol"):  # they would give up after 9 s each time
        slurm.wrap(client, "exit 1")
    slurm.stop_controller()
    project.wait_for(lambda: all(has_ended(project, loss) for loss in LOSSES), "trainings end")
    for client in ("squeue", "scontrol"):
        slurm.wrap(client)
    slurm.start_controller()
    check(project, driver, again=0)
    assert "has forgotten them" in project.output


def has_ended(project, loss):
    return (project.folder / f"results/tiny/runs/letters/tiny/{loss}/seed0/metrics.json").is_file()


def test_the_accounting_that_is_asked_is_not_there(project):
    driver = project.submit("--", "--slurm-status-command", "sacct")
    check(project, driver, again=0)
    assert "has forgotten them" in project.output


def test_the_driver_and_snakemake_are_killed(project):
    slurm = project.slurm
    slurm.call("scontrol", "update", "nodename=node2", "state=drain", "reason=test")
    try:
        project.submit("--detach").wait(60)
        project.wait_for(
            lambda: any(project.progress(loss) >= STEP for loss in LOSSES), "one trains"
        )
        project.wait_for(lambda: project.jobs("PENDING"), "one waits")
        first = project.json("results/tiny/driver.json")
        assert f"process {first['pid']}" in status(project)
        viewer = project.submit()
        project.wait_for(lambda: "works on it already" in project.output, "the view")
        viewer.send_signal(signal.SIGINT)
        assert viewer.wait(60) == 0
        os.kill(first["pid"], signal.SIGKILL)
        driver = project.submit()
        project.wait_for(lambda: "joins it" in project.output, "the new driver finds Snakemake")
        lock = (project.folder / "results/tiny/lock").read_text()
        os.kill(int(lock.split()[1]), signal.SIGKILL)
        project.wait_for(lambda: "jobs of an earlier call" in project.output, "orphans")
    finally:
        slurm.call("scontrol", "update", "nodename=node2", "state=resume")
    check(project, driver, again=1)
    assert "1 pending. Cancels 1" in project.output


def test_a_job_reaches_its_time_limit(project):
    slurm = project.slurm
    driver = project.submit()
    wait_for_trainings(project, LOSSES[0])
    job = job_of(project, LOSSES[0])
    path = f"results/tiny/state/letters/tiny/{LOSSES[0]}/seed0/progress.json"
    os.kill(project.json(path)["pid"], signal.SIGSTOP)  # it would be over before the limit
    slurm.call("scontrol", "update", f"jobid={job}", "timelimit=1")
    project.wait_for(lambda: "ended early" in project.output, "the limit", seconds=200)
    assert slurm.job(job)["JobState"] in ("FAILED", "TIMEOUT")  # SLURM asks it to end before that
    check(project, driver, again=1)


def test_a_stopped_driver_cancels_its_jobs_and_the_next_one_goes_on(project):
    driver = project.submit()
    wait_for_trainings(project, *LOSSES)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(100) == 130, project.output
    assert "is left in the queue." in project.output
    assert "stopped, can continue" in status(project)
    check(project, project.submit("--cancel-orphans"), again=3)
