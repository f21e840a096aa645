import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from dmlbench.study.study import check_study
from dmlbench.tracking import database, sync

CELL = "letters/tiny/proxy_anchor"
RUN = f"{CELL}/seed0"
T_95 = math.tan(0.475 * math.pi)  # 97.5 % quantile of Student's t with one degree of freedom


class Results:
    """A study with made-up result files, and the MLflow runs made from them."""

    def __init__(self, settings, uri, template):
        self.settings, self.uri, self.template = settings, uri, template
        self.read()
        self.write_all()

    def read(self):
        """Make the study anew from `settings`."""
        self.study = check_study(self.settings, "tiny")

    def folder(self, path):
        return self.study.folder / "runs" / path

    def write_all(self):
        for path in self.study.runs:
            self.write(path)

    def write(self, path, recall=None, status="ok", epochs=3, columns=(), train_seconds=20.0):
        """Write the result files of one run."""
        run, folder = self.study.runs[path], self.folder(path)
        folder.mkdir(parents=True, exist_ok=True)
        error = None if status == "ok" else {"message": "the loss is nan", "tail": ["a", "b"]}
        recall = recall or 0.5 + 0.1 * run.seed
        scores = {"recall@1": recall, "map@r": recall / 2, "queries": 9} if status == "ok" else {}
        names = {"dataset": run.dataset, "backbone": run.backbone, "loss": run.loss}
        result = {"train_key": run.train_key, "status": status, "error": error}
        provenance = {
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
        trained |= {"settings": run.settings, "code": {}, "provenance": provenance}
        rows = [{"protocol": "zero_shot", "metric": m, "value": scores[m]} for m in scores]
        scored = {"eval_key": run.eval_key, **result, "metrics": rows, "settings": {}, "code": {}}
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
        files = self.study.files.run(path)
        files.write_run(trained)
        files.write_metrics(scored, files.load_run())

    def track(self):
        """Import the results; return the number of runs for each action that was taken."""
        line, *self.how_to_look = sync.track(self.study, self.uri).splitlines()
        parts = line.rpartition(f"{self.uri}: ")[2].split(", ")
        return {action: int(n) for n, action in (part.split() for part in parts) if n != "0"}

    @property
    def client(self):
        return MlflowClient(self.uri)

    def tracked(self):
        """All live runs of the experiment by the path of their result."""
        experiment = self.client.get_experiment_by_name("tiny")
        runs = self.client.search_runs([experiment.experiment_id])
        by_path = {run.data.tags.get("dmlbench.path", run.info.run_name): run for run in runs}
        assert len(by_path) == len(runs)
        return by_path

    def ids(self):
        return {path: run.info.run_id for path, run in self.tracked().items()}

    def is_complete(self):
        """Whether MLflow holds each run once, finished, and under its cell."""
        runs = self.tracked()
        cells = {path.rpartition("/")[0] for path in self.study.runs}
        return runs.keys() == {*cells, *self.study.runs} and all(
            run.info.status in ("FINISHED", "FAILED")
            and run.data.tags["dmlbench.digest"]
            and (
                path in cells
                or run.data.tags["mlflow.parentRunId"] == runs[path.rpartition("/")[0]].info.run_id
            )
            for path, run in runs.items()
        )

    def assert_as_written(self):
        """The runs of one cell hold what its result files hold."""
        self._assert_seed_as_written()
        self._assert_cell_as_written()

    def _assert_seed_as_written(self):
        runs = self.tracked()
        run, planned = runs[RUN], self.study.runs[RUN]
        written = json.loads((self.folder(RUN) / "run.json").read_text())
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
        settings = count_values(written["settings"]) + count_values(planned.metric_settings)
        assert len(params) == 3 + settings
        assert run.data.metrics == {
            "zero_shot/recall_at_1": 0.5,
            "zero_shot/map_at_r": 0.25,
            "zero_shot/queries": 9.0,
            "cost/train_seconds": 20.0,
            "cost/core_hours": 20 / 3600,
            "cost/peak_memory_mb": 512.5,
            "training/epoch": 3.0,
            "training/loss": 1.0,
            "training/lr": 0.003,
            "training/images_per_second": 99.0,
        }
        start, end = 1767323045000, 1767323105000  # 2026-01-02, 03:04:05 and 03:05:05 UTC
        curve = self.client.get_metric_history(run.info.run_id, "training/loss")
        assert [(p.step, p.timestamp, p.value) for p in sorted(curve, key=lambda p: p.step)] == [
            (10, start + 5000, 2.0),
            (20, start + 10000, 1.5),
            (30, start + 15000, 1.0),
        ]
        (score,) = self.client.get_metric_history(run.info.run_id, "zero_shot/recall_at_1")
        assert (score.step, score.timestamp) == (30, end)
        assert (run.info.start_time, run.info.end_time) == (start, end)
        assert run.info.status == "FINISHED"
        assert run.info.run_name == "proxy_anchor · tiny · letters · seed0"
        expected = {
            "dmlbench.train_key": planned.train_key,
            "dmlbench.eval_key": planned.eval_key,
            "dmlbench.status": "ok",
            "dmlbench.folder": f"results/tiny/runs/{RUN}",
            "mlflow.source.git.commit": "c0ffee" * 6,
            "mlflow.source.git.dirty": "true",
            "mlflow.user": (self.folder(RUN) / "run.json").owner(),
            "mlflow.parentRunId": runs[CELL].info.run_id,
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
        artefacts = {a.path for a in self.client.list_artifacts(run.info.run_id)}
        assert artefacts == {"run.json", "metrics.json"}
        copy = self.client.download_artifacts(run.info.run_id, "run.json", ".")
        assert json.loads(Path(copy).read_text()) == written

    def _assert_cell_as_written(self):
        runs = self.tracked()
        cell, params = runs[CELL], runs[RUN].data.params
        assert cell.info.run_name == "proxy_anchor · tiny · letters"
        assert cell.data.metrics == pytest.approx(
            {
                "zero_shot/recall_at_1": 0.55,
                "zero_shot/recall_at_1_ci95": T_95 * 0.05,
                "zero_shot/map_at_r": 0.275,
                "zero_shot/map_at_r_ci95": T_95 * 0.025,
                "zero_shot/queries": 9.0,
                "cost/train_seconds": 40.0,
                "cost/core_hours": 40 / 3600,
                "cost/peak_memory_mb": 512.5,
            },
            rel=1e-12,
        )
        assert cell.data.params == {name: params[name] for name in params if name != "seed"}
        assert cell.data.tags["dmlbench.seeds"] == "2 of 2"
        assert "mlflow.parentRunId" not in cell.data.tags


def count_values(settings):
    """How many values nested settings have."""
    return sum(count_values(v) if isinstance(v, dict) else 1 for v in settings.values())


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A database with MLflow's tables, which take seconds to create."""
    file = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}")
    return file


@pytest.fixture
def results(tiny, empty_database, tmp_path, monkeypatch):
    """The results of two losses and two seeds in an empty folder, and an empty database."""
    tiny["plan"] |= {"losses": ["normalized_softmax", "proxy_anchor"], "seeds": [0, 1]}
    tiny["plan"]["controls"] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(database, "DATABASE", tmp_path / "results/mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("results").mkdir()
    shutil.copy(empty_database, "results/mlflow.db")
    return Results(tiny, sync.tracking_uri(), empty_database)
