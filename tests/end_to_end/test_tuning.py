"""A tuned study with real Snakemake: trials, choices, final runs; damaged, killed and continued."""

import contextlib
import json
import os
import random
import shutil
import signal
import time

import numpy as np
import pytest

from dmlbench.utils.digests import write_with_digest

from ..project import RUNS, STUDY, Project, copy_project

LOSSES = ("proxy_anchor", "triplet")
TUNING = f"{STUDY}/tuning/letters/tiny"
PATIENCE = 900  # seconds for a call: each of its jobs imports torch
LAST = {"build_leaderboard": 1, "verdict": 1}
ALL = {"trial": 4, "choose": 2, "train": 2, "evaluate": 2, **LAST}


@pytest.fixture(scope="module")
def tuned_settings(tiny_settings):
    settings = json.loads(json.dumps(tiny_settings))
    settings["plan"] |= {"losses": [*LOSSES], "controls": []}
    return settings | {"tuning": {"trials": 2, "folds": 2}}


@pytest.fixture
def tuned(tuned_settings):
    """A study of 2 losses with 2 trials of 2 folds, to be changed by the test."""
    return json.loads(json.dumps(tuned_settings))


@pytest.fixture(scope="module")
def _finished_tuned(tmp_path_factory, data_folder, tuned_settings):
    project = Project(copy_project(tmp_path_factory.mktemp("tuned") / "made"), data_folder)
    project.write(tuned_settings)
    project.run(timeout=PATIENCE)
    return project


@pytest.fixture
def finished_tuned(_finished_tuned, tmp_path, data_folder):
    """A project with the tuned study run to its end, to change and to run again."""
    return Project(shutil.copytree(_finished_tuned.folder, tmp_path / "copy"), data_folder)


def chosen(project, loss):
    return project.json(f"{TUNING}/{loss}/chosen.json")


def choices(project):
    """What was chosen, and from which scores: everything but times and digests."""
    return {
        loss: (
            content["chosen"],
            content["score"],
            [(t["status"], t["best_epoch"], t["best_score"]) for t in content["trials"]],
        )
        for loss in LOSSES
        for content in [chosen(project, loss)]
    }


def attempts(project, loss):
    """Trial -> how often it was begun."""
    logs = (project.folder / TUNING / loss).glob("trial*/log.txt")
    return {log.parent.name: log.read_text().count("attempt of") for log in logs}


def test_a_tuned_study_runs_to_its_leaderboard_and_then_nothing_is_left(finished_tuned):
    for loss in LOSSES:
        choice = chosen(finished_tuned, loss)
        run = finished_tuned.json(f"{RUNS}/{loss}/seed0/run.json")
        assert choice["spent"]["trials"] == len(choice["trials"]) == 2
        assert choice["score"] == max(trial["best_score"] for trial in choice["trials"])
        assert run["chosen"] == choice["chosen"]
        assert run["settings"]["recipe"]["lr"] == choice["chosen"]["recipe"]["lr"]
        assert attempts(finished_tuned, loss) == {"trial0": 1, "trial1": 1}
    assert not (finished_tuned.folder / f"{STUDY}/state/letters/tiny/triplet/trial0").exists()
    assert "triplet" in (finished_tuned.folder / f"{STUDY}/leaderboard/leaderboard.md").read_text()
    assert "4 trials: 4 done" in finished_tuned.dmlbench("status", "study.yaml")
    assert finished_tuned.planned() == {}


@pytest.mark.slow
def test_a_new_study_and_one_with_more_trials_plan_what_will_run(finished_tuned, tuned):
    said = finished_tuned.diff({})
    assert "tuning: 4 trials for 2 cells, each with 2 folds x 1 epochs" in said
    finished_tuned.write(tuned | {"study": "other"})
    finished_tuned.diff(ALL)
    tuned["tuning"]["trials"] = 6
    finished_tuned.write(tuned)
    said = finished_tuned.diff(ALL | {"trial": 8})
    assert "  no result yet: 8 trials (letters x tiny x all 2 losses x trial 2, 3, 4, 5)" in said
    assert "  tuning.trials: 2 -> 6: 2 cells (letters x tiny x all 2 losses)" in said


@pytest.mark.slow
def test_four_more_trials_run_exactly_four_for_each_loss_and_no_training_in_vain(
    finished_tuned, tuned
):
    before = {loss: chosen(finished_tuned, loss)["chosen"] for loss in LOSSES}
    first = f"{TUNING}/triplet/trial0/trial.json"
    content = (finished_tuned.folder / first).read_bytes()
    metrics = finished_tuned.metrics()
    finished_tuned.environment.pop("MLFLOW_TRACKING_URI", None)
    tuned["tuning"]["trials"] = 6
    finished_tuned.write(tuned | {"tracking": True})
    finished_tuned.run(cores=4, timeout=PATIENCE)
    for loss in LOSSES:
        assert attempts(finished_tuned, loss) == {f"trial{i}": 1 for i in range(6)}
        now = chosen(finished_tuned, loss)
        assert len(now["trials"]) == 6
        log = (finished_tuned.folder / RUNS / loss / "seed0/log.txt").read_text()
        is_same = now["chosen"] == before[loss]
        assert ("finished under this key already" in log) == is_same
        assert log.count("attempt of") == (1 if is_same else 2)
        if is_same:
            file = f"{RUNS}/{loss}/seed0/metrics.json"
            assert finished_tuned.metrics()[file] == metrics[file]
    assert (finished_tuned.folder / first).read_bytes() == content
    finished_tuned.diff({})


@pytest.mark.slow
def test_four_workers_at_once_lose_no_trial_and_run_none_twice(project, tuned):
    tuned["tuning"]["trials"] = 6
    tuned["tracking"] = True
    project.environment.pop("MLFLOW_TRACKING_URI", None)
    project.write(tuned)
    project.run(cores=4, timeout=PATIENCE)
    for loss in LOSSES:
        assert attempts(project, loss) == {f"trial{i}": 1 for i in range(6)}
        assert len(chosen(project, loss)["trials"]) == 6
    project.diff({})


@pytest.mark.slow
def test_a_tuned_study_that_is_killed_twice_chooses_and_learns_the_same(project, tuned, tmp_path):
    tuned["recipe"]["epochs"] = 4
    tuned["tracking"] = True
    project.environment.pop("MLFLOW_TRACKING_URI", None)
    project.write(tuned)
    project.run(timeout=PATIENCE)
    expected = choices(project)
    embeddings = {loss: project.embeddings(loss) for loss in LOSSES}
    for path in ("results", ".snakemake"):
        (project.folder / path).rename(project.folder / f"{path}.whole")

    state = project.folder / f"{STUDY}/state/letters/tiny"
    for part in ("*/trial*/fold0", "*/trial*/fold1"):
        process = project.start()
        deadline = time.monotonic() + 200
        while not [*state.glob(f"{part}/progress.json")] and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(random.uniform(0, 1.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for file in state.glob("*/*/*/progress.json"):  # the trials are no children of the group
            kill_if_alive(json.loads(file.read_text())["pid"])
    project.run(timeout=PATIENCE)
    assert choices(project) == expected
    for loss in LOSSES:
        assert np.array_equal(project.embeddings(loss), embeddings[loss])
    begun = [count for loss in LOSSES for count in attempts(project, loss).values()]
    assert max(begun) > 1
    project.diff({})


def kill_if_alive(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_trial_without_a_result_leaves_holes_with_its_reason_until_it_has_one(project, tuned):
    obstacle = project.folder / TUNING / "triplet/trial1/curve.parquet/x"
    obstacle.mkdir(parents=True)  # no file can take this place
    project.write(tuned)
    output = project.run("--retries", "0", expect=1, timeout=PATIENCE)
    message = "letters/tiny/triplet/seed0: not_tuned: its settings are not chosen: "
    assert f"  {message}letters/tiny/triplet/trial1: error: training: " in output
    table = (project.folder / f"{STUDY}/leaderboard/leaderboard.csv").read_text()
    assert ",not_tuned," in table
    assert "proxy_anchor" in table
    assert "4 trials: 3 done, 1 failed" in project.dmlbench("status", "study.yaml")

    shutil.rmtree(obstacle.parent)
    project.diff({"trial": 1, "choose": 1, "train": 1, "evaluate": 1, **LAST})
    project.run(timeout=PATIENCE)
    project.diff({})


@pytest.mark.slow
def test_a_failed_trial_alone_is_repeated_by_the_next_call(finished_tuned):
    file = finished_tuned.folder / TUNING / "triplet/trial1/trial.json"
    before = json.loads(file.read_text())
    failed = {"scores": [], "epochs": [], "best_epoch": None, "best_score": None}
    error = {"message": "no room on the GPU", "tail": []}
    content = before | failed | {"status": "out_of_memory", "error": error}
    write_with_digest(file, {key: content[key] for key in content if key != "digest"})
    said = finished_tuned.diff({"trial": 1, "choose": 1, "train": 1, "evaluate": 1, **LAST})
    assert "  failed: out_of_memory (no room on the GPU): 1 trial (letters x tiny x " in said
    finished_tuned.run(timeout=PATIENCE)
    after = json.loads(file.read_text())
    assert after["scores"] == before["scores"]
    finished_tuned.diff({})
