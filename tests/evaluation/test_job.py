"""The job scores the embeddings of a training, or passes its failure on."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dmlbench.datasets.store.part import Part
from dmlbench.evaluation import job
from dmlbench.evaluation.evaluate import Scores
from dmlbench.evaluation.job import evaluate_job
from dmlbench.evaluation.query_file import read_class_scores
from dmlbench.study.study import check_study
from dmlbench.utils.digests import describe_file
from dmlbench.utils.errors import MissingResult, UnusableGpu
from dmlbench.utils.fingerprint import code_digests
from dmlbench.utils.gpu_lease import lease

CONTROL = "letters/tiny/control_oracle/seed0"


@pytest.fixture
def study(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny["plan"]["controls"] = ["oracle"]
    return check_study(tiny, "tiny")


def write_training(study, test, embeddings, status="ok", **changes):
    """Write the files of the control as a training would."""
    run = study.runs[CONTROL]
    files = study.files.run(CONTROL)
    files.folder.mkdir(parents=True)
    error = None if status == "ok" else {"message": "it broke", "tail": ["a", "b"]}
    outcome = {"train_key": run.train_key, "status": status, "error": error}
    np.savez(files.embeddings, embeddings=embeddings, id=test.rows.astype(np.int32))
    files.write_run({**outcome, "settings": {}, "code": {}, "provenance": {}, **changes})
    return run, files.folder


def score(study, run, folder, data_folder):
    evaluate_job(study, run, data_folder / "stores")
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture
def test_split(glyphs):
    return glyphs.split("test", Part(0.1))


def perfect(test):
    return np.eye(test.labels.max() + 1, dtype=np.float32)[test.labels]


def test_perfect_embeddings_of_some_of_the_classes_score_one(study, data_folder, test_split):
    run, folder = write_training(study, test_split, perfect(test_split))
    result = score(study, run, folder, data_folder)
    values = {row["metric"]: row["value"] for row in result["metrics"]}
    assert (result["status"], result["eval_key"]) == ("ok", run.eval_key)
    assert values["queries"] == len(test_split.rows)
    assert values["recall@1"] == values["map@r"] == values["r_precision"] == 1
    assert values["nmi"] == pytest.approx(1)
    assert {row["protocol"] for row in result["metrics"]} == {"zero_shot"}
    assert result["settings"] == run.metric_settings
    assert result["code"] == code_digests(*run.metric_modules)


def test_scores_of_the_same_training_are_not_computed_again(
    study, data_folder, test_split, monkeypatch
):
    run, folder = write_training(study, test_split, perfect(test_split))
    score(study, run, folder, data_folder)
    before = (folder / "metrics.json").read_text()
    monkeypatch.setattr(job, "_score", None)  # a call would be a failure, with a status
    score(study, run, folder, data_folder)
    assert (folder / "metrics.json").read_text() == before


@pytest.mark.parametrize("change", ["queries", "metrics", "training"])
def test_scores_that_are_damaged_or_of_another_training_are_computed_again(
    study, data_folder, test_split, change
):
    run, folder = write_training(study, test_split, perfect(test_split))
    before = score(study, run, folder, data_folder)
    files = study.files.run(run.path)
    if change == "training":
        files.write_run({**files.load_run(), "again": True, "digest": None})
    else:
        file = getattr(files, change)
        file.write_bytes(file.read_bytes() + b"x")
    after = score(study, run, folder, data_folder)
    assert files.find_damaged(after) == []
    assert after["training"] == files.load_run()["digest"]
    assert (after["training"] == before["training"]) == (change != "training")


def test_single_queries_are_written_and_named_by_the_scores(study, data_folder, test_split):
    random = np.random.default_rng(0)
    noisy = perfect(test_split) + random.normal(size=(len(test_split.rows), 1)).astype(np.float32)
    noisy += random.normal(size=noisy.shape).astype(np.float32)
    run, folder = write_training(study, test_split, noisy)
    result = score(study, run, folder, data_folder)
    files = study.files.run(CONTROL)
    values = {row["metric"]: row["value"] for row in result["metrics"]}
    of_classes = read_class_scores(files.queries, "zero_shot")
    assert of_classes.totals.sum() / of_classes.weights.sum() == pytest.approx(values["map@r"])
    assert len(of_classes.classes) == len(np.unique(test_split.labels))
    assert result["files"] == {"queries.parquet": describe_file(files.queries)}
    assert files.find_problems(result) == []


def test_a_scoring_that_fails_leaves_no_queries(study, data_folder, test_split):
    run, folder = write_training(study, test_split, perfect(test_split))
    score(study, run, folder, data_folder)
    flip_a_bit(folder / "embeddings.npz")
    result = score(study, run, folder, data_folder)
    assert (result["status"], result["files"]) == ("damaged", {})
    assert not (folder / "queries.parquet").exists()


def test_a_failed_training_gives_a_failed_result(study, data_folder, test_split):
    run, folder = write_training(study, test_split, np.empty((0, 4), np.float32), status="diverged")
    result = score(study, run, folder, data_folder)
    assert (result["status"], result["metrics"]) == ("diverged", [])
    assert result["error"]["message"] == "it broke"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: np.where(np.arange(len(x))[:, None] == 3, np.nan, x), "NaN"),
        (np.ones_like, "same"),
    ],
)
def test_unusable_embeddings_give_an_error_and_no_score(
    study, data_folder, test_split, spoil, message
):
    run, folder = write_training(study, test_split, spoil(perfect(test_split)))
    result = score(study, run, folder, data_folder)
    assert (result["status"], result["metrics"]) == ("error", [])
    assert message in result["error"]["message"]


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "a bit": flip_a_bit,
    "empty": lambda file: file.write_bytes(b""),
    "of another run": lambda file: np.savez(file, embeddings=np.eye(3), id=np.arange(3)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_embeddings_are_not_scored_and_the_training_counts_as_damaged(
    study, data_folder, test_split, damage
):
    run, folder = write_training(study, test_split, perfect(test_split))
    DAMAGES[damage](folder / "embeddings.npz")
    result = score(study, run, folder, data_folder)
    assert (result["status"], result["metrics"]) == ("damaged", [])
    assert result["error"]["message"] == (
        f"{folder}/embeddings.npz: damaged: it is not the file that its training wrote. "
        "`snakemake` trains this run again."
    )


def test_missing_embeddings_are_named(study, data_folder, test_split):
    run, folder = write_training(study, test_split, perfect(test_split))
    (folder / "embeddings.npz").unlink()
    result = score(study, run, folder, data_folder)
    assert result["status"] == "damaged"
    assert "embeddings.npz: there is no such file" in result["error"]["message"]


def test_scores_that_cannot_be_are_an_error(study, data_folder, test_split, monkeypatch):
    row = {"protocol": "zero_shot", "metric": "map@r", "value": 1.5}
    monkeypatch.setattr(job, "evaluate", lambda *_, **__: Scores([row], []))
    run, folder = write_training(study, test_split, perfect(test_split))
    result = score(study, run, folder, data_folder)
    assert (result["status"], result["metrics"]) == ("error", [])
    assert "map@r is 1.5, and must be from 0 to 1" in result["error"]["message"]


def test_a_training_of_another_key_is_refused(study, data_folder, test_split):
    run, folder = write_training(study, test_split, perfect(test_split), train_key="other")
    with pytest.raises(MissingResult, match=r"run\.json: it has key other.*trains this run again"):
        evaluate_job(study, run, data_folder / "stores")
    assert not (folder / "metrics.json").exists()


@pytest.fixture
def gpu(monkeypatch, tmp_path, use_gpus):
    """A machine with a GPU that scores everything.

    `gpu.calls` has the device and CUDA_VISIBLE_DEVICES of each scoring; `gpu.error` is raised by
    the GPU.
    """
    gpu = SimpleNamespace(calls=[], error=None)

    def evaluate(*_, device="cpu", **options):
        gpu.calls.append((device, os.environ.get("CUDA_VISIBLE_DEVICES")))
        if device == "cuda" and gpu.error:
            raise gpu.error
        return Scores([{"protocol": "zero_shot", "metric": "map@r", "value": 1.0}], [])

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(job, "GPU_SCORING_IMAGES", 10)
    use_gpus("GPU-a")
    monkeypatch.setattr(job, "evaluate", evaluate)
    monkeypatch.setattr(job, "choose_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Fake 9000")
    return gpu


def test_many_embeddings_are_scored_on_the_leased_gpu(study, data_folder, test_split, gpu):
    run, folder = write_training(study, test_split, perfect(test_split))
    result = score(study, run, folder, data_folder)
    assert gpu.calls == [("cuda", "GPU-a")]
    assert (result["status"], result["device"], len(result["metrics"])) == ("ok", "Fake 9000", 1)
    assert result["eval_key"] == run.eval_key


def test_few_embeddings_are_scored_on_the_cpu_and_so_are_all_without_a_gpu(
    study, data_folder, test_split, gpu, monkeypatch, use_gpus
):
    run, folder = write_training(study, test_split, perfect(test_split))
    monkeypatch.setattr(job, "GPU_SCORING_IMAGES", len(test_split.rows) + 1)
    assert score(study, run, folder, data_folder)["device"] == "cpu"
    monkeypatch.setattr(job, "GPU_SCORING_IMAGES", len(test_split.rows))
    (folder / "metrics.json").unlink()
    assert score(study, run, folder, data_folder)["device"] == "Fake 9000"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    use_gpus()
    (folder / "metrics.json").unlink()
    assert score(study, run, folder, data_folder)["device"] == "cpu"
    assert gpu.calls == [("cpu", "0,1"), ("cuda", "GPU-a"), ("cpu", "0,1")]


def test_scorings_share_a_gpu_if_the_study_lets_its_jobs_share_it(
    study, tiny, data_folder, test_split, gpu, monkeypatch
):
    class WouldWait(Exception):
        pass

    def refuse_to_wait(seconds):
        raise WouldWait

    monkeypatch.setattr("dmlbench.utils.gpu_lease.time.sleep", refuse_to_wait)
    run, folder = write_training(study, test_split, perfect(test_split))
    with lease(["GPU-a"], 2):
        assert "WouldWait" in score(study, run, folder, data_folder)["error"]["message"]
        sharing = check_study(tiny | {"runs_per_gpu": 2}, "tiny")
        assert score(sharing, run, folder, data_folder)["device"] == "Fake 9000"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    ],
)
def test_the_cpu_scores_if_the_gpu_has_too_little_memory_or_fails_and_answers_nothing_more(
    study, data_folder, test_split, gpu, monkeypatch, capsys, error
):
    def refuse():
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    gpu.error = error
    monkeypatch.setattr(torch.cuda, "empty_cache", refuse)
    run, folder = write_training(study, test_split, perfect(test_split))
    result = score(study, run, folder, data_folder)
    assert [device for device, _ in gpu.calls] == ["cuda", "cpu"]
    assert (result["status"], result["device"]) == ("ok", "cpu")
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"scoring on the CPU, as the GPU failed: {error}"


def test_an_error_that_is_not_of_the_gpu_is_an_error(study, data_folder, test_split, gpu):
    gpu.error = RuntimeError("shape '[2]' is invalid for input of size 3")
    run, folder = write_training(study, test_split, perfect(test_split))
    result = score(study, run, folder, data_folder)
    assert (result["status"], result["metrics"]) == ("error", [])
    assert "RuntimeError: shape '[2]' is invalid" in result["error"]["message"]


def test_a_machine_with_too_little_memory_to_score_is_out_of_memory(
    study, data_folder, test_split, monkeypatch
):
    def fail(*_, **__):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(job, "evaluate", fail)
    run, folder = write_training(study, test_split, perfect(test_split))
    assert score(study, run, folder, data_folder)["status"] == "out_of_memory"


def test_the_cpu_scores_if_torch_cannot_compute_on_the_gpu(
    study, data_folder, test_split, gpu, monkeypatch, capsys
):
    def refuse():
        raise UnusableGpu("torch cannot compute on the GPU")

    monkeypatch.setattr(job, "choose_device", refuse)
    run, folder = write_training(study, test_split, perfect(test_split))
    assert score(study, run, folder, data_folder)["device"] == "cpu"
    assert [device for device, _ in gpu.calls] == ["cpu"]
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "scoring on the CPU: torch cannot compute on the GPU"
