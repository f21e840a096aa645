"""An MLflow run holds what the result files hold, and is replaced exactly when that changes."""

import re
import shutil

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_metric_name

from dmlbench.tracking.records import metric_name
from dmlbench.utils.modules import PACKAGE

from ..result_edits import describe_again, edit_result

CELL = "letters/tiny/proxy_anchor"
RUN = f"{CELL}/seed0"


def test_mlflow_holds_what_the_files_hold(results):
    assert results.track() == {"created": 6}
    assert results.is_complete()
    results.assert_as_written()


def test_seeds_and_cells_name_the_test_data_set_if_it_is_another_one(results):
    results.track()
    assert "dmlbench.tested_on" not in results.tracked()[RUN].data.tags
    results.settings["datasets"]["part"] = {"type": "glyphs", "class_fraction": 0.2}
    results.settings["datasets"]["letters"]["test_on"] = "part"
    results.read()
    results.write_all()
    results.track()
    runs = results.tracked()
    assert {runs[path].data.tags["dmlbench.tested_on"] for path in (RUN, CELL)} == {"part"}
    assert {row["tested_on"] for row in results.study.rows} == {"part"}


def test_external_embeddings_are_a_cell_with_a_seed_too(results):
    np.savez("outside.npz", embeddings=np.ones((2, 3)), id=np.arange(2))
    results.settings["embeddings"] = {"outside": {"dataset": "letters", "file": "outside.npz"}}
    results.settings["plan"]["embeddings"] = ["outside"]
    results.read()
    results.write_all()
    results.track()
    assert "letters/tiny/embeddings_outside/seed0" in results.tracked()
    assert results.is_complete()


def test_a_failed_run_is_marked_as_failed_with_its_error(results):
    results.write(RUN, status="diverged", epochs=1)
    results.track()
    runs = results.tracked()
    run = runs[RUN]
    assert run.info.status == "FAILED"
    assert run.data.tags["dmlbench.status"] == "diverged"
    assert run.data.tags["dmlbench.error"] == "the loss is nan"
    note = run.data.tags["mlflow.note.content"]
    assert note == "**diverged**: the loss is nan\n\n```\na\nb\n```"
    assert run.data.metrics["training/loss"] == 2.0
    assert not any(name.startswith("zero_shot") for name in run.data.metrics)
    cell = runs[CELL]
    assert (cell.info.status, cell.data.tags["dmlbench.seeds"]) == ("FINISHED", "1 of 2")
    scores = {name: value for name, value in cell.data.metrics.items() if "cost" not in name}
    assert scores == {
        "zero_shot/recall_at_1": 0.6,
        "zero_shot/map_at_r": 0.3,
        "zero_shot/queries": 9.0,
    }
    assert cell.data.metrics["cost/train_seconds"] == 40.0


def test_a_cell_is_failed_until_one_of_its_seeds_succeeds(results):
    for seed in (0, 1):
        results.write(f"{CELL}/seed{seed}", status="out_of_memory", epochs=0)
    results.track()
    assert results.tracked()[CELL].info.status == "FAILED"
    results.write(RUN)
    assert results.track() == {"replaced": 2, "unchanged": 4}
    runs = results.tracked()
    assert {runs[CELL].info.status, runs[RUN].info.status} == {"FINISHED"}


@pytest.mark.parametrize("metric", ["recall@1", "map@r", "recall@1 level_1"])
def test_mlflow_accepts_the_name_of_every_metric(metric):
    name = metric_name("zero_shot", metric)
    assert name in {f"zero_shot/{m}" for m in ("recall_at_1", "map_at_r", "recall_at_1_level_1")}
    _validate_metric_name(name)


def test_mlflow_does_not_accept_an_at_sign():
    with pytest.raises(MlflowException):  # the reason for `metric_name`
        MlflowClient("sqlite://").log_metric("0" * 32, "recall@1", 1.0)


def test_a_history_of_many_values_is_complete(results):
    results.write(RUN, epochs=500, columns=("extra", "other"), train_seconds=2500.0)
    results.track()
    run = results.tracked()[RUN]
    for name, last in (("training/loss", 1.0), ("training/extra", 499 / 7)):
        curve = results.client.get_metric_history(run.info.run_id, name)
        assert len(curve) == 500
        assert max(curve, key=lambda point: point.step).value == last


def test_a_loss_may_name_its_numbers_as_it_likes(results):
    results.write(RUN, columns=("angle [°], mean",))
    results.track()
    assert results.tracked()[RUN].data.metrics["training/angle ____ mean"] == 2 / 7


def test_counts_of_images_and_pairs_have_no_interval(results):
    """As in a data set that is only for verification."""
    scores = {"verification_accuracy": 0.5, "pairs": 6000.0, "lone_queries": 3.0}
    rows = [{"protocol": "verification", "metric": m, "value": v} for m, v in scores.items()]
    for path in results.study.runs:
        edit_result(results.folder(path) / "metrics.json", metrics=rows)
    results.track()
    metrics = results.tracked()[CELL].data.metrics
    assert {name: metrics[name] for name in metrics if "cost" not in name} == {
        "verification/verification_accuracy": 0.5,
        "verification/verification_accuracy_ci95": 0.0,
        "verification/pairs": 6000.0,
        "verification/lone_queries": 3.0,
    }


def test_an_interrupted_training_started_before_its_last_attempt(results):
    results.write(RUN, epochs=30, train_seconds=150.0)  # its last attempt took 60 of them
    results.track()
    run = results.tracked()[RUN]
    assert run.info.end_time - run.info.start_time == 150_000
    curve = results.client.get_metric_history(run.info.run_id, "training/loss")
    assert max(point.timestamp for point in curve) == run.info.end_time


def test_the_artefact_of_a_loss_is_an_artefact_of_its_seed(results):
    files = results.study.files.run(RUN)
    files.artefacts.mkdir()
    files.loss_artefact.write_text("{}")
    describe_again(files)
    results.track()
    run = results.tracked()[RUN]
    artefacts = {a.path for a in results.client.list_artifacts(run.info.run_id)}
    assert artefacts == {"loss.json", "metrics.json", "run.json"}
    files.loss_artefact.write_text('{"learnt": 1}')
    describe_again(files)
    assert results.track() == {"replaced": 2, "unchanged": 4}


def test_the_leaderboard_is_a_run_with_its_page_and_plots(results):
    folder = results.study.folder / "leaderboard"
    (folder / "plots").mkdir(parents=True)
    (folder / "leaderboard.md").write_text("# tiny\n\n![plot](plots/recall.png)\n" + "long " * 2000)
    (folder / "plots/recall.png").write_bytes(b"png")
    results.track()
    client, run = results.client, results.tracked()["leaderboard"]
    files = {a.path for a in client.list_artifacts(run.info.run_id)}
    assert files == {"leaderboard.md", "plots"}
    assert [a.path for a in client.list_artifacts(run.info.run_id, "plots")] == ["plots/recall.png"]
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith("# tiny\n\nlong long")
    assert len(note) == 8000
    (folder / "plots/recall.png").write_bytes(b"PNG")
    assert results.track() == {"replaced": 1, "unchanged": 6}


def test_embeddings_are_copied_if_the_study_asks_for_it(results):
    results.track()
    results.settings["track_embeddings"] = True
    results.read()
    assert results.track() == {"replaced": 6}
    run = results.ids()[RUN]
    assert "embeddings.npz" in {a.path for a in results.client.list_artifacts(run)}
    assert results.track() == {"unchanged": 6}


@pytest.mark.parametrize("name", ["run.json", "metrics.json", "history.parquet"])
def test_a_change_in_one_file_replaces_the_run(results, name):
    results.track()
    other = results.folder(f"{CELL}/seed1") / name
    if name == "history.parquet":
        shutil.copy(other, results.folder(RUN))
        describe_again(results.study.files.run(RUN))
    else:
        edit_result(results.folder(RUN) / name, remark="new")
    assert results.track() == {"replaced": 2, "unchanged": 4}


@pytest.mark.parametrize("file", ["costs.py", "records.py", "sync.py"])
def test_only_a_change_of_code_in_tracking_replaces_all_runs(results, read_package, tmp_path, file):
    package = tmp_path / "copy" / PACKAGE.name
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    read_package(package)
    results.read()
    assert results.track() == {"created": 6}
    before = results.ids()

    module = package / "tracking" / file
    text = module.read_text()
    docstrings_changed, count = re.subn(r'^( *""")(?=\w)', r"\1Changed: ", text, flags=re.MULTILINE)
    assert count > 2
    module.write_text(f"# a comment\n{docstrings_changed}")
    read_package(package)
    results.read()
    assert results.track() == {"unchanged": 6}
    assert results.ids() == before

    module.write_text(text + "\nEXTRA = 1\n")
    read_package(package)
    results.read()
    assert results.track() == {"replaced": 6}
    assert not {*before.values()} & {*results.ids().values()}


def test_the_tracking_key_depends_on_results_code_place_and_choices(results):
    key = results.study.tracking_key("sqlite:///a")
    assert results.study.tracking_key("sqlite:///b") != key
    results.settings["track_embeddings"] = True
    results.read()
    assert results.study.tracking_key("sqlite:///a") != key
    results.settings["track_embeddings"] = False
    results.settings["keep_model"] = True
    results.read()
    assert results.study.tracking_key("sqlite:///a") == key
    results.settings["evaluation"] = {"recall_at": [3]}
    results.read()
    assert results.study.tracking_key("sqlite:///a") != key
