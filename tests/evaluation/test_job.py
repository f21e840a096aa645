"""The job scores what the trainer wrote, hands its failure on, and takes nothing else."""

import json
import os

import numpy as np
import pytest
import torch

from dmlbench import source, study
from dmlbench.evaluation import job
from dmlbench.evaluation.job import evaluate_job
from dmlbench.files import MissingResult
from dmlbench.gpus import lease

CONTROL = "letters/tiny/control_oracle/seed0"


@pytest.fixture
def made(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny["plan"]["controls"] = ["oracle"]
    return study.check(tiny, "tiny")


def trained(made, test, embeddings, status="ok", **changes):
    """What a trainer would have left for the control."""
    run = made.runs[CONTROL]
    folder = made.folder / "runs" / CONTROL
    folder.mkdir(parents=True)
    error = None if status == "ok" else {"message": "it broke", "tail": ["a", "b"]}
    record = {"train_key": run.train_key, "status": status, "error": error}
    (folder / "run.json").write_text(json.dumps(record | changes.pop("record", {})))
    columns = {"embeddings": embeddings, "id": test.rows.astype(np.int32)}
    np.savez(folder / "embeddings.npz", **(columns | {"train_key": run.train_key} | changes))
    return run, folder


def score(made, run, folder, data_folder):
    evaluate_job(made, run, data_folder / "stores")
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture
def test_split(glyphs):
    return glyphs.split("test", 0.1)


def perfect(test):
    return np.eye(test.labels.max() + 1, dtype=np.float32)[test.labels]


def test_perfect_embeddings_of_a_part_of_the_classes_score_one(made, data_folder, test_split):
    run, folder = trained(made, test_split, perfect(test_split))
    result = score(made, run, folder, data_folder)
    values = {row["metric"]: row["value"] for row in result["metrics"]}
    assert (result["status"], result["eval_key"]) == ("ok", run.eval_key)
    assert values["queries"] == len(test_split.rows)
    assert values["recall@1"] == values["map@r"] == values["r_precision"] == 1
    assert values["nmi"] == pytest.approx(1)
    assert {row["protocol"] for row in result["metrics"]} == {"zero_shot"}
    assert result["settings"] == run.metric_settings
    assert result["code"] == source.code("dmlbench.evaluation")


def test_a_failed_training_is_a_failed_result(made, data_folder, test_split):
    run, folder = trained(made, test_split, np.empty((0, 4), np.float32), status="diverged")
    result = score(made, run, folder, data_folder)
    assert (result["status"], result["metrics"]) == ("diverged", [])
    assert result["error"]["message"] == "it broke"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: np.where(np.arange(len(x))[:, None] == 3, np.nan, x), "NaN"),
        (np.ones_like, "same"),
    ],
)
def test_unusable_embeddings_are_an_error_and_no_score(
    made, data_folder, test_split, spoil, message
):
    run, folder = trained(made, test_split, spoil(perfect(test_split)))
    result = score(made, run, folder, data_folder)
    assert (result["status"], result["metrics"]) == ("error", [])
    assert message in result["error"]["message"]


def test_embeddings_of_another_key_are_refused(made, data_folder, test_split):
    run, folder = trained(made, test_split, perfect(test_split), train_key="other")
    result = score(made, run, folder, data_folder)
    assert result["status"] == "error"
    assert "embeddings.npz has key other" in result["error"]["message"]


def test_a_training_of_another_key_is_refused(made, data_folder, test_split):
    run, folder = trained(made, test_split, perfect(test_split), record={"train_key": "other"})
    with pytest.raises(MissingResult, match=r"run\.json: it has key other.*ask again"):
        evaluate_job(made, run, data_folder / "stores")
    assert not (folder / "metrics.json").exists()


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A machine with a GPU, on which all is scored; what its scoring was asked and saw, a call
    each."""
    asked = []

    def scored(*given, device="cpu"):
        asked.append((device, os.environ.get("CUDA_VISIBLE_DEVICES")))
        if device == "cuda" and gpu.error:
            raise gpu.error
        return [{"protocol": "zero_shot", "metric": "map@r", "value": 1.0}]

    def gpu():
        return asked

    gpu.error = None
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(job, "SCORED_FROM", 10)
    monkeypatch.setattr(job, "visible_gpus", lambda: ["GPU-a"])
    monkeypatch.setattr(job, "evaluate", scored)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Fake 9000")
    return gpu


def test_many_embeddings_are_scored_on_the_gpu_that_is_leased(made, data_folder, test_split, gpu):
    run, folder = trained(made, test_split, perfect(test_split))
    result = score(made, run, folder, data_folder)
    assert gpu() == [("cuda", "GPU-a")]
    assert (result["status"], result["device"], len(result["metrics"])) == ("ok", "Fake 9000", 1)
    assert result["eval_key"] == run.eval_key


def test_few_embeddings_or_no_gpu_are_scored_on_the_cpu(
    made, data_folder, test_split, gpu, monkeypatch
):
    run, folder = trained(made, test_split, perfect(test_split))
    monkeypatch.setattr(job, "SCORED_FROM", len(test_split.rows) + 1)
    assert score(made, run, folder, data_folder)["device"] == "cpu"
    monkeypatch.setattr(job, "SCORED_FROM", len(test_split.rows))
    assert score(made, run, folder, data_folder)["device"] == "Fake 9000"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(job, "visible_gpus", list)
    assert score(made, run, folder, data_folder)["device"] == "cpu"
    assert gpu() == [("cpu", "0,1"), ("cuda", "GPU-a"), ("cpu", "0,1")]


def test_scores_share_a_gpu_as_the_study_lets_its_jobs(
    made, tiny, data_folder, test_split, gpu, monkeypatch
):
    class Enough(Exception):
        pass

    def give_up(seconds):
        raise Enough

    monkeypatch.setattr("dmlbench.gpus.time.sleep", give_up)
    run, folder = trained(made, test_split, perfect(test_split))
    with lease(["GPU-a"], 2):
        assert "Enough" in score(made, run, folder, data_folder)["error"]["message"]
        shares = study.check(tiny | {"runs_per_gpu": 2}, "tiny")
        assert score(shares, run, folder, data_folder)["device"] == "Fake 9000"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_where_the_memory_of_the_gpu_does_not_suffice_the_cpu_scores(
    made, data_folder, test_split, gpu, capsys, error
):
    gpu.error = error
    run, folder = trained(made, test_split, perfect(test_split))
    result = score(made, run, folder, data_folder)
    assert [device for device, _ in gpu()] == ["cuda", "cpu"]
    assert (result["status"], result["device"]) == ("ok", "cpu")
    assert str(error) in capsys.readouterr().out


def test_another_error_of_the_gpu_is_an_error(made, data_folder, test_split, gpu):
    gpu.error = RuntimeError("CUDA error: an illegal memory access was encountered")
    run, folder = trained(made, test_split, perfect(test_split))
    result = score(made, run, folder, data_folder)
    assert (result["status"], result["metrics"]) == ("error", [])
    assert "illegal memory access" in result["error"]["message"]


def test_a_gpu_that_torch_does_not_see_is_none(
    made, data_folder, test_split, gpu, monkeypatch, capsys
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run, folder = trained(made, test_split, perfect(test_split))
    assert score(made, run, folder, data_folder)["device"] == "cpu"
    assert "torch does not see the GPU" in capsys.readouterr().out
