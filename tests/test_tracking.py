"""MLflow holds what the result files say, however often, and however badly, it was told."""

import fcntl
import importlib.util
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_metric_name

from dmlbench import records, study, tracking

ROOT = Path(__file__).parent.parent
LOSSES, SEEDS = ["normalized_softmax", "proxy_anchor"], [0, 1]
CELL = "letters/tiny/proxy_anchor"
RUN = f"{CELL}/seed0"
T_95 = math.tan(0.475 * math.pi)  # 97.5 % quantile of Student's t with one degree of freedom


class Results:
    """A study with made-up result files, and what MLflow holds of it."""

    def __init__(self, settings, uri):
        self.settings, self.uri = settings, uri
        self.read()
        for path in self.study.runs:
            self.write(path)

    def read(self):
        self.study = study.check(self.settings, "tiny")

    def folder(self, path):
        return self.study.folder / "runs" / path

    def write(self, path, recall=None, status="ok", epochs=3, columns=(), train_seconds=20.0):
        run, folder = self.study.runs[path], self.folder(path)
        folder.mkdir(parents=True, exist_ok=True)
        error = None if status == "ok" else {"message": "the loss is nan", "tail": ["a", "b"]}
        recall = recall or 0.5 + 0.1 * run.seed
        scores = {"recall@1": recall, "map@r": recall / 2, "queries": 9} if status == "ok" else {}
        names = {"dataset": run.dataset, "backbone": run.backbone, "loss": run.loss}
        result = {"train_key": run.train_key, "status": status, "error": error}
        origin = {
            "git_commit": "c0ffee" * 6 + "-dirty",
            "versions": {"python": "3.11.9", "torch": "2.15.0"},
            "host": "here",
            "started": "2026-01-02T03:04:05+00:00",
            "finished": "2026-01-02T03:05:05+00:00",
            "device": "cpu (test)",
            "driver": None,
            "train_seconds": train_seconds,
            "peak_memory_mb": 512.5,
            "images_per_second": None,
        }
        trained = {**names, "study": "tiny", "seed": run.seed, **result}
        self._json(folder / "run.json", {**trained, "settings": run.settings, "provenance": origin})
        rows = [{"protocol": "zero_shot", "metric": m, "value": scores[m]} for m in scores]
        self._json(folder / "metrics.json", {"eval_key": run.eval_key, **result, "metrics": rows})
        history = {
            "epoch": np.arange(1, epochs + 1),
            "step": 10 * np.arange(1, epochs + 1),
            "loss": np.linspace(2, 1, epochs) + run.seed,
            "lr": np.full(epochs, 0.003),
            "images_per_second": np.full(epochs, 99.0),
            "seconds": np.full(epochs, 5.0),
            **{name: np.arange(epochs) / 7 for name in columns},
        }
        pq.write_table(pa.table(history if epochs else {}), folder / "history.parquet")
        np.savez(folder / "embeddings.npz", embeddings=np.ones((2, 3)) * run.seed)

    def _json(self, file, content):
        file.write_text(json.dumps(content))

    def track(self):
        """What was done, as counts."""
        said = tracking.track(self.study, self.uri)
        parts = said.rpartition(f"{self.uri}: ")[2].split(", ")
        return {what: int(n) for n, what in (part.split() for part in parts) if n != "0"}

    @property
    def client(self):
        return MlflowClient(self.uri)

    def tracked(self):
        """All live runs of the experiment by the path of their result."""
        experiment = self.client.get_experiment_by_name("tiny")
        runs = self.client.search_runs([experiment.experiment_id])
        found = {run.data.tags.get("dmlbench.path", run.info.run_name): run for run in runs}
        assert len(found) == len(runs)
        return found

    def ids(self):
        return {path: run.info.run_id for path, run in self.tracked().items()}

    def whole(self):
        """Whether MLflow holds each run once, complete, and under its cell."""
        found = self.tracked()
        cells = {path.rpartition("/")[0] for path in self.study.runs}
        return found.keys() == {*cells, *self.study.runs} and all(
            run.info.status in ("FINISHED", "FAILED")
            and run.data.tags["dmlbench.digest"]
            and (
                path in cells
                or run.data.tags["mlflow.parentRunId"] == found[path.rpartition("/")[0]].info.run_id
            )
            for path, run in found.items()
        )


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A database with MLflow's tables, which take seconds to make."""
    file = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}")
    return file


@pytest.fixture
def settings(tiny):
    tiny["plan"] |= {"losses": LOSSES, "seeds": SEEDS, "controls": []}
    return tiny


@pytest.fixture
def results(settings, empty_database, tmp_path, monkeypatch):
    """The study's result files in a folder of their own, beside an empty database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "DATABASE", tmp_path / "results/mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("results").mkdir()
    shutil.copy(empty_database, "results/mlflow.db")
    return Results(settings, tracking.tracking_uri())


def assert_told_as_written(results):
    """The runs of CELL hold what their files say."""
    runs = results.tracked()
    run, cell, plan = runs[RUN], runs[CELL], results.study.runs[RUN]
    written = json.loads((results.folder(RUN) / "run.json").read_text())
    params = run.data.params
    assert params["dataset"] == "letters"
    assert params["loss"] == "proxy_anchor"
    assert params["loss.alpha"] == "32.0"
    assert params["recipe.lr"] == "0.003"
    assert params["recipe.augmentation.crop_scale"] == "[0.16, 1.0]"
    assert params["recipe.freeze_bn"] == "false"
    assert params["recipe.optimizer"] == "adamw"
    assert params["evaluation.recall_at"] == "[1, 2, 4, 8]"
    assert params["seed"] == "0"
    assert len(params) == 3 + leaves(written["settings"]) + leaves(plan.metric_settings)
    assert run.data.metrics == {
        "zero_shot/recall_at_1": 0.5,
        "zero_shot/map_at_r": 0.25,
        "zero_shot/queries": 9.0,
        "cost/train_seconds": 20.0,
        "cost/peak_memory_mb": 512.5,
        "training/epoch": 3.0,
        "training/loss": 1.0,
        "training/lr": 0.003,
        "training/images_per_second": 99.0,
    }
    start, end = 1767323045000, 1767323105000  # 2026-01-02, 03:04:05 and 03:05:05 UTC
    curve = results.client.get_metric_history(run.info.run_id, "training/loss")
    assert [(p.step, p.timestamp, p.value) for p in sorted(curve, key=lambda p: p.step)] == [
        (10, start + 5000, 2.0),
        (20, start + 10000, 1.5),
        (30, start + 15000, 1.0),
    ]
    (score,) = results.client.get_metric_history(run.info.run_id, "zero_shot/recall_at_1")
    assert (score.step, score.timestamp) == (30, end)
    assert (run.info.start_time, run.info.end_time) == (start, end)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "proxy_anchor · tiny · letters · seed0"
    expected = {
        "dmlbench.train_key": plan.train_key,
        "dmlbench.eval_key": plan.eval_key,
        "dmlbench.status": "ok",
        "dmlbench.folder": f"results/tiny/runs/{RUN}",
        "mlflow.source.git.commit": "c0ffee" * 6,
        "mlflow.source.git.dirty": "true",
        "mlflow.user": (results.folder(RUN) / "run.json").owner(),
        "mlflow.parentRunId": cell.info.run_id,
        "device": "cpu (test)",
        "host": "here",
        "version.torch": "2.15.0",
    }
    assert expected.items() <= run.data.tags.items()
    inputs = {i.tags[0].value: i.dataset for i in run.inputs.dataset_inputs}
    assert {split: data.name for split, data in inputs.items()} == {
        "train": "glyphs-train",
        "test": "glyphs-test",
    }
    assert json.loads(inputs["train"].profile)["class_fraction"] == 0.1
    artefacts = {a.path for a in results.client.list_artifacts(run.info.run_id)}
    assert artefacts == {"run.json", "metrics.json"}
    copy = results.client.download_artifacts(run.info.run_id, "run.json", ".")
    assert json.loads(Path(copy).read_text()) == written

    assert cell.info.run_name == "proxy_anchor · tiny · letters"
    assert cell.data.metrics == pytest.approx(
        {
            "zero_shot/recall_at_1": 0.55,
            "zero_shot/recall_at_1_ci95": T_95 * 0.05,
            "zero_shot/map_at_r": 0.275,
            "zero_shot/map_at_r_ci95": T_95 * 0.025,
            "zero_shot/queries": 9.0,
        },
        rel=1e-12,
    )
    assert cell.data.params == {name: params[name] for name in params if name != "seed"}
    assert cell.data.tags["dmlbench.seeds"] == "2 of 2"
    assert "mlflow.parentRunId" not in cell.data.tags


def leaves(settings):
    return sum(leaves(value) if isinstance(value, dict) else 1 for value in settings.values())


def test_mlflow_holds_what_the_files_say(results):
    assert results.track() == {"created": 6}
    assert results.whole()
    assert_told_as_written(results)


def test_seeds_and_cells_name_the_data_set_that_was_tested_where_it_is_another_one(results):
    results.track()
    assert "dmlbench.tested_on" not in results.tracked()[RUN].data.tags
    results.settings["datasets"]["part"] = {"type": "glyphs", "class_fraction": 0.2}
    results.settings["datasets"]["letters"]["test_on"] = "part"
    results.read()
    for path in results.study.runs:
        results.write(path)
    results.track()
    found = results.tracked()
    assert {found[path].data.tags["dmlbench.tested_on"] for path in (RUN, CELL)} == {"part"}
    assert {row["tested_on"] for row in results.study.rows} == {"part"}


def test_a_second_import_changes_nothing(results):
    results.track()
    before = Path("results/mlflow.db").read_bytes()
    assert results.track() == {"unchanged": 6}
    assert Path("results/mlflow.db").read_bytes() == before


def test_a_repeat_needs_no_mlflow_and_no_pandas_which_take_longer_than_the_rest(results, tmp_path):
    results.track()
    Path("study.yaml").write_text(yaml.safe_dump(results.settings))
    code = (
        "import sys\n"
        "from dmlbench.cli import main\n"
        "try: main(['track', 'study.yaml'])\n"
        "finally: print(*{'mlflow', 'sqlalchemy', 'pandas'} & sys.modules.keys())"
    )
    with command(tmp_path, arguments=["-c", code]) as process:
        said, _, imported = process.communicate()[0].splitlines()
    assert said.endswith("0 created, 0 replaced, 6 unchanged, 0 deleted")
    assert imported == ""


def test_a_changed_key_replaces_its_runs_alone(results):
    results.track()
    before = results.ids()
    results.settings["losses"] = {"proxy_anchor": {"alpha": 16.0}}
    results.read()
    for seed in SEEDS:
        results.write(f"{CELL}/seed{seed}")
    assert results.track() == {"replaced": 3, "unchanged": 3}
    after = results.tracked()
    kept = {path for path, run in after.items() if before[path] == run.info.run_id}
    assert kept == {path for path in before if "normalized_softmax" in path}
    assert after[RUN].data.params["loss.alpha"] == "16.0"
    assert results.whole()


def test_a_new_result_of_one_seed_replaces_it_and_its_cell(results):
    results.track()
    before = results.ids()
    results.write(RUN, recall=0.9)
    assert results.track() == {"replaced": 2, "unchanged": 4}
    after = results.ids()
    assert {path for path in after if after[path] != before[path]} == {RUN, CELL}
    assert results.whole()  # the other seed moved under the new cell
    assert results.tracked()[CELL].data.metrics["zero_shot/recall_at_1"] == pytest.approx(0.75)
    assert results.track() == {"unchanged": 6}


@pytest.mark.parametrize("name", ["run.json", "metrics.json", "history.parquet"])
def test_a_change_in_one_file_replaces_the_run(results, name):
    results.track()
    other = results.folder(f"{CELL}/seed1") / name
    if name == "history.parquet":
        shutil.copy(other, results.folder(RUN))
    else:
        file = results.folder(RUN) / name
        file.write_text(file.read_text() + "\n")
    assert results.track() == {"replaced": 2, "unchanged": 4}


@pytest.mark.parametrize(
    "call",
    ["create_run", "log_batch", "log_inputs", "log_artifact", "set_terminated", "set_tag"],
)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_interrupted_import_is_completed_by_the_next(results, monkeypatch, call, after):
    real, calls = getattr(MlflowClient, call), []

    def interrupted(*arguments, **named):
        calls.append(call)
        if len(calls) == 3:
            if after:
                real(*arguments, **named)
            raise KeyboardInterrupt
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, interrupted)
        with pytest.raises(KeyboardInterrupt):
            results.track()
    results.track()
    assert results.whole()
    assert_told_as_written(results)
    assert results.track() == {"unchanged": 6}


def test_an_import_that_stopped_between_an_old_run_and_its_new_one_is_completed(
    results, monkeypatch
):
    results.track()
    results.write(RUN, recall=0.9)
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "_write", lambda *_: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt):
            results.track()
    results.track()
    assert results.whole()
    assert results.track() == {"unchanged": 6}


def test_an_import_that_stopped_before_a_seed_moved_under_its_new_cell_is_completed(
    results, monkeypatch
):
    results.track()
    results.write(RUN, recall=0.9)
    real = MlflowClient.set_tag

    def interrupted(client, run, name, value):
        if name == "mlflow.parentRunId":
            raise KeyboardInterrupt
        real(client, run, name, value)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_tag", interrupted)
        with pytest.raises(KeyboardInterrupt):
            results.track()
    assert results.track() == {"unchanged": 6}
    assert results.whole()


def test_a_failed_run_is_failed_and_says_why(results):
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
    assert cell.data.metrics == {
        "zero_shot/recall_at_1": 0.6,
        "zero_shot/map_at_r": 0.3,
        "zero_shot/queries": 9.0,
    }


@pytest.mark.parametrize("metric", ["recall@1", "map@r", "recall@1 level_1"])
def test_the_name_of_every_metric_is_one_that_mlflow_takes(metric):
    name = records._named({"protocol": "zero_shot", "metric": metric})
    assert re.fullmatch(r"zero_shot/(recall_at_1|map_at_r|recall_at_1_level_1)", name)
    _validate_metric_name(name)


def test_a_cell_without_any_success_is_failed_until_there_is_one(results):
    for seed in SEEDS:
        results.write(f"{CELL}/seed{seed}", status="out_of_memory", epochs=0)
    results.track()
    assert results.tracked()[CELL].info.status == "FAILED"
    results.write(RUN)
    assert results.track() == {"replaced": 2, "unchanged": 4}
    runs = results.tracked()
    assert {runs[CELL].info.status, runs[RUN].info.status} == {"FINISHED"}


def test_a_run_that_the_plan_lost_goes_to_the_bin_and_comes_back(results):
    results.track()
    results.settings["plan"]["losses"] = ["normalized_softmax"]
    results.read()
    assert results.track() == {"unchanged": 3, "deleted": 3}
    assert results.whole()
    results.settings["plan"]["losses"] = LOSSES
    results.read()
    assert results.track() == {"unchanged": 3, "created": 3}
    assert results.whole()


def test_a_result_that_is_missing_or_stale_is_not_told(results):
    results.track()
    (results.folder(RUN) / "metrics.json").unlink()
    assert results.track() == {"unchanged": 3 + 1, "replaced": 1, "deleted": 1}
    results.settings["recipe"]["epochs"] = 2  # no result has this key yet
    results.read()
    assert results.track() == {"deleted": 5}


def test_runs_of_others_in_the_experiment_are_left_alone(results):
    results.track()
    client = results.client
    experiment = client.get_experiment_by_name("tiny").experiment_id
    client.create_run(experiment, run_name="by hand")
    assert results.track() == {"unchanged": 6}
    assert "by hand" in results.tracked()


@pytest.mark.parametrize("path", [CELL, RUN])
def test_a_run_that_was_deleted_in_mlflow_comes_back(results, path):
    results.track()
    results.client.delete_run(results.ids()[path])
    assert results.track() == {"created": 1, "unchanged": 5}
    assert results.whole()


def test_an_experiment_that_was_deleted_in_mlflow_comes_back(results):
    results.track()
    client = results.client
    client.delete_experiment(client.get_experiment_by_name("tiny").experiment_id)
    results.track()
    assert results.whole()


def test_a_run_that_is_there_twice_is_there_once_after_the_next_import(results):
    results.track()
    run, client = results.tracked()[RUN], results.client
    client.create_run(run.info.experiment_id, tags={"dmlbench.path": RUN})
    assert results.track()["deleted"] == 1
    assert results.whole()
    assert results.track() == {"unchanged": 6}


def test_a_history_of_many_values_arrives_whole(results):
    results.write(RUN, epochs=500, columns=("extra", "other"), train_seconds=2500.0)
    results.track()
    run = results.tracked()[RUN]
    for name, last in (("training/loss", 1.0), ("training/extra", 499 / 7)):
        curve = results.client.get_metric_history(run.info.run_id, name)
        assert len(curve) == 500
        assert max(curve, key=lambda point: point.step).value == last


def test_an_interrupted_training_began_before_its_last_attempt(results):
    results.write(RUN, epochs=30, train_seconds=150.0)  # of which its last attempt did 60
    results.track()
    run = results.tracked()[RUN]
    assert run.info.end_time - run.info.start_time == 150_000
    curve = results.client.get_metric_history(run.info.run_id, "training/loss")
    assert max(point.timestamp for point in curve) == run.info.end_time


def test_what_a_loss_has_learnt_goes_with_its_seed(results):
    file, learnt = results.folder(RUN) / "run.json", results.folder(RUN) / "artefacts/loss.json"
    learnt.parent.mkdir()
    learnt.write_text("{}")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"artefacts": ["loss.json"]}))
    results.track()
    run = results.tracked()[RUN]
    kept = {found.path for found in results.client.list_artifacts(run.info.run_id)}
    assert kept == {"loss.json", "metrics.json", "run.json"}
    learnt.write_text('{"learnt": 1}')
    assert results.track() == {"replaced": 2, "unchanged": 4}


def test_the_leaderboard_is_a_run_of_its_own(results):
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


def test_embeddings_are_copied_where_the_study_asks_for_them(results):
    results.track()
    results.settings["track_embeddings"] = True
    results.read()
    assert results.track() == {"replaced": 6}
    run = results.ids()[RUN]
    assert "embeddings.npz" in {a.path for a in results.client.list_artifacts(run)}
    assert results.track() == {"unchanged": 6}


def test_the_key_follows_results_code_place_and_choice(results):
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


def command(folder, arguments=("-m", "dmlbench", "track", "study.yaml"), **environment):
    """`dmlbench track study.yaml`, or another call of Python, as a process."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_imports_at_once_make_one_new_database(results, tmp_path, monkeypatch):
    Path("results/mlflow.db").unlink()
    Path("study.yaml").write_text(yaml.safe_dump(results.settings))
    with Path("results/mlflow.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        both = [command(tmp_path), command(tmp_path)]
        for process in both:
            assert "waiting for it" in process.stderr.readline()
        assert not Path("results/mlflow.db").exists()
    answers = sorted(process.communicate(timeout=120)[0].splitlines()[0] for process in both)
    start = "tiny: 4 of 4 results are at sqlite:///results/mlflow.db: "
    assert answers == [
        f"{start}0 created, 0 replaced, 6 unchanged, 0 deleted",
        f"{start}6 created, 0 replaced, 0 unchanged, 0 deleted",
    ]
    assert results.whole()
    assert Path("results/mlartifacts/tiny").is_dir()
    assert not Path("mlruns").exists()


@pytest.mark.skipif(importlib.util.find_spec("flask") is None, reason="the extra `ui` is not here")
def test_a_server_is_told_the_same(results, server):
    results.uri = server
    assert results.track() == {"created": 6}
    assert results.whole()
    assert_told_as_written(results)
    results.write(RUN, recall=0.9)
    assert results.track() == {"replaced": 2, "unchanged": 4}
    assert results.whole()
    assert results.track() == {"unchanged": 6}


@pytest.fixture
def server(tmp_path, empty_database):
    """Address of an MLflow server with nothing in it."""
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (
        f"--host 127.0.0.1 --port {port} --workers 1 --artifacts-destination {folder}/files "
        f"--backend-store-uri sqlite:///{folder}/mlflow.db"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *arguments.split()],
        cwd=folder,
        stdout=(folder / "log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                log = (folder / "log").read_text()
                assert process.poll() is None, log
                assert time.monotonic() < deadline, log
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_server_that_does_not_answer_is_named_without_its_password(results, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as closed:  # bound, and nobody listens
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(SystemExit) as stopped:
            tracking.track(results.study, f"http://me:secret@{address}")
    assert f"tracking to http://{address} failed" in str(stopped.value)
    assert "secret" not in str(stopped.value)


def test_the_environment_names_another_place(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.tracking_uri() == "sqlite:///results/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://example.org")
    assert tracking.tracking_uri() == "https://example.org"


def test_only_this_module_knows_mlflow():
    knowing = {
        path.name
        for path in (ROOT / "dmlbench").rglob("*.py")
        if "from mlflow" in path.read_text() or "import mlflow" in path.read_text()
    }
    assert knowing == {"tracking.py"}


def test_mlflow_s_limits_are_kept():
    with pytest.raises(MlflowException):  # what the names are changed for
        MlflowClient("sqlite://").log_metric("0" * 32, "recall@1", 1.0)
    assert records._named({"protocol": "zero_shot", "metric": "map@r"}) == "zero_shot/map_at_r"
