"""After failed jobs, the leaderboard has a hole with a reason for each run without a result."""

import csv
import json
import os
from pathlib import Path

import pytest

from dmlbench.leaderboard.made_of import HAS_HOLES
from dmlbench.leaderboard.table import Hole
from dmlbench.study.study import check_study
from dmlbench.workflow import conclusion
from dmlbench.workflow.conclusion import conclude, find_holes
from dmlbench.workflow.status import format_statuses, read_statuses
from dmlbench.workflow.study_lock import find_worker
from tests.result_edits import edit_result

DATA = Path("data")
WEIGHTS = "test_resnet.r160_in1k"
LETTERS = "letters/tiny"


@pytest.fixture
def study(tiny, tmp_path, monkeypatch):
    """A study of two data sets and two backbones, of which one starts from timm's weights."""
    monkeypatch.chdir(tmp_path)
    tiny["datasets"]["drawings"] = {"type": "omniglot"}
    tiny["backbones"]["tuned"] = tiny["backbones"]["tiny"] | {"pretrained": True}
    tiny["plan"] |= {"datasets": ["letters", "drawings"], "backbones": ["tiny", "tuned"]}
    tiny["plan"]["losses"] = ["proxy_anchor"]
    return check_study(tiny, "tiny")


def write(file, text="x"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def fail_fetching(study):
    """Let the weights, and the archives of `drawings`, be out of reach."""
    (store,) = (name for name in study.stores if name.startswith("omniglot"))
    write(study.files.fetching_log(store), "dmlbench: no archive:\n    no internet\n")
    write(study.files.weights_log(WEIGHTS), "dmlbench: the hub is away\n")


def statuses(study):
    return {path: hole.status for path, hole in find_holes(study, DATA).items()}


def test_runs_whose_images_or_weights_are_missing_have_holes_that_say_so(study, write_results):
    done = f"{LETTERS}/proxy_anchor/seed0"
    write_results(study, done)
    fail_fetching(study)
    holes = find_holes(study, DATA)
    assert {path: hole.status for path, hole in holes.items()} == {
        "letters/tiny/control_random/seed0": "not_run",
        "letters/tuned/proxy_anchor/seed0": "missing_weights",
        "letters/tuned/control_random/seed0": "not_run",  # random vectors need no weights
        "drawings/tiny/proxy_anchor/seed0": "missing_data",
        "drawings/tiny/control_random/seed0": "missing_data",
        "drawings/tuned/proxy_anchor/seed0": "missing_data",
        "drawings/tuned/control_random/seed0": "missing_data",
    }
    message = holes["drawings/tiny/proxy_anchor/seed0"].message
    assert message.startswith("its images are missing: no archive: no internet (see results/tiny/")
    message = holes["letters/tuned/proxy_anchor/seed0"].message
    assert message.startswith("its weights are missing: the hub is away (see results/tiny/logs/")


def test_a_search_for_near_duplicates_that_failed_is_named(study):
    (store,) = (name for name in study.stores if name.startswith("glyphs"))
    write(study.files.duplicates_log(store, store), "dmlbench: a thumbnail is damaged\n")
    holes = find_holes(study, DATA)
    hole = holes["letters/tiny/proxy_anchor/seed0"]
    assert hole.status == "missing_data"
    assert hole.message.startswith("nobody knows its near-duplicates: a thumbnail is damaged (see ")
    assert holes["drawings/tiny/proxy_anchor/seed0"].status == "not_run"


def test_the_process_that_works_on_the_study_asks_about_jobs_that_were_killed(study):
    (store,) = (name for name in study.stores if name.startswith("glyphs"))
    write(study.files.packing_log(store), "20 of 80 images\n")
    write(study.files.lock, "process 7 on another machine, since now,\n")
    assert find_worker(study)  # the job might run, for anybody else
    hole = find_holes(study, DATA)["letters/tiny/proxy_anchor/seed0"]
    assert hole.status == "missing_data"
    assert "it ended without a message; its last line: 20 of 80 images" in hole.message


def test_a_training_that_ended_without_a_result_is_lost(study, write_attempt):
    path = f"{LETTERS}/proxy_anchor/seed0"
    write_attempt(study, path, step=7, steps=9)
    hole = find_holes(study, DATA)[path]
    assert hole == Hole("lost", "its job ended without a result, at step 7 of 9")


def test_a_job_that_said_why_it_failed_and_a_scoring_that_did_are_errors(study, write_results):
    trained, untrained = (f"{LETTERS}/{loss}/seed0" for loss in ("proxy_anchor", "control_random"))
    write_results(study, trained, stage="run.json")
    write(study.files.run(trained).evaluate_log, "dmlbench: MemoryError: \n")
    write(study.files.run(untrained).train_log, "dmlbench: the key is another\n")
    future = study.files.run(trained).run.stat().st_mtime + 5
    os.utime(study.files.run(trained).evaluate_log, (future, future))
    holes = find_holes(study, DATA)
    assert holes[trained].status == holes[untrained].status == "error"
    assert holes[trained].message.startswith("scoring: MemoryError:")
    assert holes[untrained].message.startswith("training: the key is another (see ")


def test_a_damaged_result_is_a_hole_and_a_failed_run_is_a_result(study, write_results):
    good, bad = (f"{LETTERS}/{loss}/seed0" for loss in ("proxy_anchor", "control_random"))
    write_results(study, good)
    write_results(study, bad, status="diverged")
    assert not {good, bad} & statuses(study).keys()
    write(study.files.run(good).metrics, study.files.run(good).metrics.read_text()[:-9])
    assert good in statuses(study)


def test_the_leaderboard_has_the_finished_runs_and_holes_with_reasons(study, write_results, capsys):
    done = f"{LETTERS}/control_random/seed0"
    write_results(study, done)
    edit_result(study.files.run(done).run, study="tiny")
    fail_fetching(study)
    study.files.verdict.write_text("of an earlier call")
    conclude(study, DATA)
    with (study.files.leaderboard / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {(row["dataset"], row["backbone"], row["loss"]): row["status"] for row in rows}
    assert len(found) == len(study.runs)
    assert found["letters", "tiny", "control_random"] == "ok"
    assert found["letters", "tiny", "proxy_anchor"] == "not_run"
    assert found["letters", "tuned", "proxy_anchor"] == "missing_weights"
    assert found["drawings", "tiny", "proxy_anchor"] == "missing_data"
    page = study.files.page.read_text()
    assert "no archive: no internet" in page
    assert "missing_weights" in page
    assert "8, of which 7 failed" in study.files.table.read_text()
    assert json.loads(study.files.made_of.read_text())["key"] == HAS_HOLES
    assert not study.files.verdict.exists()
    output = capsys.readouterr().out
    assert "tiny: 7 of 8 runs failed:" in output
    assert "  4 runs of drawings: missing_data: its images are missing: no archive" in output
    assert f"The leaderboard: {study.files.page}" in output
    assert "Traceback" not in output
    assert f"The leaderboard (with holes): {study.files.table}" in format_statuses(
        study, read_statuses(study)
    )
    # nothing was made up: the same runs are missing for the next call
    assert not (study.folder / "runs/drawings").exists()


def test_a_study_without_any_result_has_a_page_that_says_so(study, capsys):
    conclude(study, DATA)
    assert "8, of which 8 failed" in study.files.table.read_text()
    assert "not_run" in study.files.page.read_text()
    assert "tiny: 8 of 8 runs failed:" in capsys.readouterr().out


def test_a_leaderboard_that_cannot_be_written_is_said_and_no_result_is_put_aside(
    study, write_results, capsys, monkeypatch
):
    path = f"{LETTERS}/proxy_anchor/seed0"
    write_results(study, path, status="diverged")

    def refuse(*_):
        raise ValueError("no font")

    monkeypatch.setattr(conclusion, "build_leaderboard", refuse)
    conclude(study, DATA)
    output = capsys.readouterr().out
    assert output.startswith("The leaderboard cannot be written: ValueError: no font\n")
    assert "The leaderboard shows them as holes" not in output
    assert study.files.run(path).metrics.exists()


def test_finished_runs_reach_mlflow_also_beside_holes(study, write_results, capsys, monkeypatch):
    calls = []
    monkeypatch.setattr(conclusion, "track", lambda study, uri: calls.append(uri) or "imported")
    tracked = check_study(study.settings.model_dump(mode="json") | {"tracking": True}, "tiny")
    conclude(tracked, DATA)
    assert len(calls) == 1
    assert "imported\n" in capsys.readouterr().out
    conclude(study, DATA)
    assert len(calls) == 1
