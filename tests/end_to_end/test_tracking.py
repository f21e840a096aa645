"""MLflow follows the results, and a study without tracking does not wait for it."""

import sqlite3
from contextlib import closing

RUNS = "select count(*) from runs where lifecycle_stage = 'active'"


def tracked(project):
    with closing(sqlite3.connect(project.folder / "results/mlflow.db")) as database:
        return database.execute(RUNS).fetchone()[0]


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
    finished.diff({})

    finished.environment["MLFLOW_TRACKING_URI"] = "sqlite:///elsewhere.db"
    finished.diff({"track": 1, "verdict": 1})


def test_a_failed_run_is_tracked_before_its_files_are_removed(finished, tiny):
    finished.environment.pop("MLFLOW_TRACKING_URI", None)
    tiny["tracking"] = True
    tiny["losses"] = {"proxy_anchor": {"proxies_lr_factor": 1e38}}
    finished.write(tiny)
    finished.run(expect=1)
    with closing(sqlite3.connect(finished.folder / "results/mlflow.db")) as database:
        failed = database.execute(
            "select name from runs where status = 'FAILED' and lifecycle_stage = 'active'"
        ).fetchall()
    assert ("proxy_anchor · tiny · letters · seed0",) in failed
    assert finished.planned() == {
        "train": 1,
        "evaluate": 1,
        "build_leaderboard": 1,
        "track": 1,
        "verdict": 1,
    }
