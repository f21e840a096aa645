"""Artefacts are found after the project has moved, and the way to the runs is told."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient

from dmlbench.tracking import sync
from dmlbench.utils.errors import TrackingError

RUN = "letters/tiny/proxy_anchor/seed0"


def read_artefact(results):
    """The status in run.json, as MLflow has it."""
    run = results.tracked()[RUN]
    copy = results.client.download_artifacts(run.info.run_id, "run.json", ".")
    return json.loads(Path(copy).read_text())["status"]


@pytest.fixture
def move(results, monkeypatch, tmp_path):
    """A function that moves the project to another folder, and goes there."""

    def move_project():
        moved = tmp_path.with_name(f"{tmp_path.name} moved")
        tmp_path.rename(moved)
        monkeypatch.chdir(moved)
        # MLflow keeps a connection to each address, so the address has the whole path here
        results.uri = results.uri.replace(f"{tmp_path}/results", f"{moved}/results")

    return move_project


def test_artefacts_are_found_after_the_project_has_moved(results, move, tmp_path):
    results.track()
    run = results.tracked()[RUN]
    assert run.info.artifact_uri == f"results/mlartifacts/tiny/{run.info.run_id}/artifacts"
    move()
    assert not tmp_path.exists()
    assert read_artefact(results) == "ok"
    assert results.track() == {"unchanged": 6}
    results.write(RUN, recall=0.9)
    assert results.track() == {"replaced": 2, "unchanged": 4}
    assert read_artefact(results) == "ok"
    assert not tmp_path.exists()


def test_whole_paths_of_an_older_database_become_relative(results, move, tmp_path):
    results.track()
    whole = (tmp_path / "results/mlartifacts/tiny").as_uri()
    with sqlite3.connect("results/mlflow.db") as database:
        database.execute(
            "update experiments set artifact_location = ? where name = 'tiny'", [whole]
        )
        database.execute(
            "update runs set artifact_uri = replace(artifact_uri, ?, ?)",
            ["results/mlartifacts/tiny", whole],
        )
    move()
    assert results.track() == {"unchanged": 6}
    assert read_artefact(results) == "ok"


def test_a_database_elsewhere_has_whole_paths_and_follows_a_move(
    results, move, tmp_path, tmp_path_factory
):
    elsewhere = tmp_path_factory.mktemp("shared") / "mlflow.db"
    shutil.copy("results/mlflow.db", elsewhere)
    results.uri = f"sqlite:///{elsewhere}"
    results.track()
    assert results.tracked()[RUN].info.artifact_uri.startswith(f"file://{tmp_path}/results/")
    move()
    assert results.track() == {"unchanged": 6}
    assert read_artefact(results) == "ok"


def test_an_experiment_of_the_user_keeps_its_place_for_artefacts(results, tmp_path):
    place = (tmp_path / "mine").as_uri()
    MlflowClient(results.uri).create_experiment("tiny", artifact_location=place)
    results.track()
    assert results.tracked()[RUN].info.artifact_uri.startswith(f"{place}/")
    assert results.track() == {"unchanged": 6}


def test_the_way_to_the_training_runs_is_told_each_time(results):
    for _ in range(2):
        results.track()
        number = results.client.get_experiment_by_name("tiny").experiment_id
        page = f"http://127.0.0.1:5000/#/experiments/{number}/runs?workflowType=machine_learning"
        assert results.how_to_look == [
            f"To look: mlflow ui --backend-store-uri {results.uri}",
            f"then open {page}",
        ]


def test_a_server_is_its_own_page():
    assert sync._how_to_look("https://example.org/ml/", "7") == [
        "To look: https://example.org/ml/#/experiments/7/runs?workflowType=machine_learning"
    ]


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("sqlite:////proc/none/mlflow.db", "No such file or directory: '/proc/none'"),
        ("sqlite:///results/damaged.db", "file is not a database"),
        ("nonsense://there", "nonsense"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_message(results, uri, reason):
    Path("results/damaged.db").write_text("this is no database\n" * 100)
    with pytest.raises(TrackingError) as stopped:
        sync.track(results.study, uri)
    assert str(stopped.value).startswith(f"tracking to {uri} failed: ")
    assert reason in str(stopped.value)
