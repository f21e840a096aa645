"""MLflow follows the results, and a study without tracking does not wait for it."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from dmlbench.tracking.records import metric_name

RUNS = "select count(*) from runs where lifecycle_stage = 'active'"


def tracked(project):
    with closing(sqlite3.connect(project.folder / "results/mlflow.db")) as database:
        return database.execute(RUNS).fetchone()[0]


@pytest.mark.slow
def test_tracking_follows_the_results(finished, tiny):
    assert not (finished.folder / "results/mlflow.db").exists()
    finished.environment.pop("MLFLOW_TRACKING_URI", None)
    tiny["tracking"] = True
    finished.write(tiny)
    finished.diff({"track": 1, "verdict": 1})
    finished.run()
    assert tracked(finished) == 3 + 3 + 1
    said = (finished.folder / "results/tiny/tracked.txt").read_text()
    assert said.startswith("tiny: 3 of 3 results are at sqlite:///results/mlflow.db: 7 created")
    finished.diff({})

    tiny["plan"]["losses"] = ["proxy_anchor"]
    finished.write(tiny)
    finished.diff({"build_leaderboard": 1, "track": 1, "verdict": 1})
    finished.run()
    assert tracked(finished) == 2 + 2 + 1


def test_a_failed_import_is_named_until_somebody_repeats_it(finished, tiny):
    finished.environment["MLFLOW_TRACKING_URI"] = "sqlite:////proc/none/mlflow.db"
    finished.write(tiny | {"tracking": True})
    output = finished.run(expect=1)
    assert "Traceback" not in output
    reason = "track: tracking to sqlite:////proc/none/mlflow.db failed: [Errno 2] No such file"
    assert f"{reason} or directory: '/proc/none'" in finished.failed_jobs()
    assert "log: results/tiny/logs/tracking.log" in finished.failed_jobs()
    finished.environment["MLFLOW_TRACKING_URI"] = "sqlite:///elsewhere.db"
    finished.dmlbench("track", "study.yaml")
    assert finished.failed_jobs() == ""
    finished.diff({"track": 1, "verdict": 1})


@pytest.mark.slow
def test_every_kind_of_row_is_tracked_and_failed_ones_before_their_files_are_removed(
    finished, tiny, glyphs, monkeypatch
):
    finished.environment.pop("MLFLOW_TRACKING_URI", None)
    ids = np.arange(len(glyphs.index["path"]))
    embeddings = np.random.default_rng(0).normal(size=(ids.size, 4))
    np.savez(finished.folder / "whole.npz", embeddings=embeddings, id=ids)
    np.savez(finished.folder / "same.npz", embeddings=np.ones_like(embeddings), id=ids)
    tiny["datasets"] |= {
        "crossed": tiny["datasets"]["letters"] | {"test_on": "more"},
        "more": {"type": "glyphs", "class_fraction": 0.2},
    }
    tiny["losses"] = {"bad": {"type": "proxy_anchor", "proxies_lr_factor": 1e6}}
    tiny["recipe"]["weight_decay"] = 1
    tiny["embeddings"] = {
        name: {"dataset": "letters", "file": f"{name}.npz"} for name in ("whole", "same")
    }
    tiny["plan"] |= {
        "datasets": ["letters", "crossed"],
        "losses": ["normalized_softmax", "bad"],
        "embeddings": ["whole", "same"],
        "exclude": [{"dataset": "crossed", "loss": "bad"}],
    }
    tiny["tracking"] = True
    finished.write(tiny)
    output = finished.run(expect=1)
    assert "tiny: 2 of 7 runs failed:" in output
    assert not (finished.folder / "results/tiny/verdict.txt").exists()

    monkeypatch.chdir(finished.folder)
    client = MlflowClient(f"sqlite:///{finished.folder}/results/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    runs = {
        run.data.tags["dmlbench.path"]: run
        for run in client.search_runs([experiment.experiment_id])
    }
    seeds = {path.removesuffix("/seed0"): runs[path] for path in runs if path.endswith("/seed0")}
    good = {
        "letters/tiny/normalized_softmax",
        "letters/tiny/control_random",
        "letters/tiny/embeddings_whole",
        "crossed/tiny/normalized_softmax",
        "crossed/tiny/control_random",
    }
    failed = {"letters/tiny/bad": "diverged", "letters/tiny/embeddings_same": "error"}
    assert seeds.keys() == good | failed.keys()
    assert runs.keys() == {"leaderboard", *seeds, *(f"{cell}/seed0" for cell in seeds)}
    for cell in seeds:
        assert seeds[cell].data.tags["mlflow.parentRunId"] == runs[cell].info.run_id
        status = "FINISHED" if cell in good else "FAILED"
        assert (seeds[cell].info.status, runs[cell].info.status) == (status, status)
        assert seeds[cell].data.tags["dmlbench.status"] == failed.get(cell, "ok")
        tested = "more" if "crossed" in cell else None
        assert seeds[cell].data.tags.get("dmlbench.tested_on") == tested
    for cell in good:
        scores = finished.json(f"results/tiny/runs/{cell}/seed0/metrics.json")["metrics"]
        written = {metric_name("zero_shot", row["metric"]): row["value"] for row in scores}
        assert "zero_shot/recall_at_1" in written
        assert written.items() <= seeds[cell].data.metrics.items()
        assert written.items() <= runs[cell].data.metrics.items()
    for cell in failed:
        assert not any(name.startswith("zero_shot/") for name in runs[cell].data.metrics)
    error = seeds["letters/tiny/embeddings_same"].data.tags["dmlbench.error"]
    assert "are the same vector (collapsed)" in error
    costs = {cell: runs[cell].data.metrics["cost/core_hours"] for cell in good}
    assert {cell for cell in good if costs[cell]} == {cell for cell in good if "softmax" in cell}
    assert "seed" not in seeds["letters/tiny/embeddings_whole"].data.params
    run_id = seeds["letters/tiny/bad"].info.run_id
    copy = client.download_artifacts(run_id, "run.json", ".")
    assert json.loads(Path(copy).read_text())["status"] == "diverged"
    again = {"train": 1, "evaluate": 2, "build_leaderboard": 1, "track": 1, "verdict": 1}
    assert finished.planned() == again
