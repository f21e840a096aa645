"""A job writes a result whatever happens, and loses nothing that was computed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dmlbench import source, study
from dmlbench.backbones.model import EmbeddingModel
from dmlbench.backbones.weights import MissingWeights
from dmlbench.datasets.csv import Csv
from dmlbench.datasets.pack import pack
from dmlbench.evaluation.job import evaluate_job
from dmlbench.gpus import lease
from dmlbench.training import job
from dmlbench.training.train import Diverged, embed_test

PATH = "letters/tiny/normalized_softmax/seed0"
HISTORY = [{"epoch": 1, "step": 9, "loss": 2.0, "seconds": 1.0, "images_per_second": 9.0}]


@pytest.fixture
def made(tiny, tmp_path, monkeypatch, data_folder):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMLBENCH_DATA", str(data_folder))
    return study.check(tiny, "tiny")


def go(made, stores, path=PATH, minutes=None):
    run = made.runs[path]
    code = job.train_job(made, run, stores / "stores", minutes)
    out = made.folder / "runs" / path
    result = json.loads((out / "run.json").read_text()) if (out / "run.json").is_file() else None
    return code, result, out, made.folder / "state" / path


def test_a_training_leaves_its_embeddings_history_settings_and_origin(made, data_folder, glyphs):
    code, result, out, state = go(made, data_folder)
    assert (code, result["status"], result["error"]) == (0, "ok", None)
    run = made.runs[PATH]
    with np.load(out / "embeddings.npz") as file:
        test = glyphs.split("test", run.data.class_fraction)
        assert file["embeddings"].shape == (len(test.rows), 16)
        assert file["embeddings"].dtype == np.float32
        assert np.array_equal(file["id"], test.rows)
        assert str(file["train_key"]) == run.train_key
    history = pq.read_table(out / "history.parquet").to_pylist()
    assert [row["epoch"] for row in history] == [1]
    assert result["settings"] == json.loads(json.dumps(run.settings))
    assert result["code"] == source.code(*run.modules)
    assert "dmlbench.losses.normalized_softmax" in result["code"]
    assert result["provenance"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert result["provenance"]["images_per_second"] > 0
    assert result["artefacts"] == []
    assert not state.exists()


def test_a_model_that_is_kept_is_the_one_that_embedded(tiny, made, data_folder, glyphs):
    tiny["keep_model"] = True
    kept = study.check(tiny, "tiny")
    _, result, out, _ = go(kept, data_folder)
    assert (result["status"], result["error"]) == ("ok", None)
    run = kept.runs[PATH]
    model = EmbeddingModel(run.model, run.recipe, channels=1)
    model.load_state_dict(load_file(out / "model.safetensors"))
    with np.load(out / "embeddings.npz") as file:
        again, _ = embed_test(model, glyphs, torch.device("cpu"), run)
        assert np.array_equal(file["embeddings"], again)
    (out / "run.json").unlink()
    go(made, data_folder)  # of a study that does not keep it
    assert not (out / "model.safetensors").exists()


def test_what_a_loss_has_learnt_stands_beside_the_names_of_its_classes(tiny, made, data_folder):
    tiny["plan"]["losses"] = ["htl"]
    tiny["losses"] = {"htl": {"warmup_epochs": 0, "neighbours": 2}}
    made, path = study.check(tiny, "tiny"), "letters/tiny/htl/seed0"
    _, result, out, _ = go(made, data_folder, path)
    assert (result["status"], result["error"]) == ("ok", None)
    assert result["artefacts"] == ["loss.json"]
    artefact = json.loads((out / "artefacts/loss.json").read_text())
    assert artefact["train_key"] == made.runs[path].train_key
    scripts = {"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN"}
    named = [name.split()[1] for name in artefact["classes"]]  # "U+0061 LATIN SMALL LETTER A"
    assert [name.upper() for name in artefact["super_classes"]["level_1"]] == named
    assert {*named} == scripts
    learnt = artefact["learnt"]
    assert len(learnt["spread"]) == len(named)
    assert [merge[3] for merge in learnt["merges"]][-1] == len(named) == len(learnt["merges"]) + 1


def test_a_result_without_its_artefact_is_made_again_and_one_without_any_has_none(
    tiny, made, data_folder, monkeypatch
):
    tiny["plan"]["losses"] = ["softtriple"]
    made, path = study.check(tiny, "tiny"), "letters/tiny/softtriple/seed0"
    _, first, out, _ = go(made, data_folder, path)
    artefact = out / "artefacts/loss.json"
    written = artefact.read_text()
    artefact.unlink()
    _, second, *_ = go(made, data_folder, path)
    assert artefact.read_text() == written
    assert second["provenance"] != first["provenance"]

    # a failure that takes the place of a result
    tiny["recipe"]["lr"] = 0.001
    failing = study.check(tiny, "tiny")
    monkeypatch.setattr(job, "_produce", lambda *_: 1 / 0)
    _, failed, *_ = go(failing, data_folder, path)
    assert (failed["status"], failed["artefacts"]) == ("error", [])
    assert not artefact.exists()


@pytest.mark.parametrize("control", ["random", "untrained", "oracle"])
def test_a_control_embeds_without_a_training(tiny, made, data_folder, control, glyphs):
    tiny["plan"]["controls"] = [control]
    made = study.check(tiny, "tiny")
    path = f"letters/tiny/control_{control}/seed0"
    code, result, out, _ = go(made, data_folder, path)
    assert (code, result["status"]) == (0, "ok")
    test = glyphs.split("test", 0.1)
    with np.load(out / "embeddings.npz") as file:
        vectors = file["embeddings"]
    assert vectors.shape == (len(test.rows), 16)
    same = np.all(vectors[:, None] == vectors[None], axis=2)
    if control == "oracle":
        assert np.array_equal(same, test.labels[:, None] == test.labels[None])
    else:
        assert same.sum() == len(vectors)
    assert pq.read_table(out / "history.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Diverged("the loss is nan", HISTORY), "diverged"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (MemoryError("Unable to allocate 9 TiB"), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (MissingWeights("no weights of x"), "missing_weights"),
        (ZeroDivisionError("division by zero"), "error"),
    ],
)
def test_a_failure_is_a_result(made, data_folder, monkeypatch, error, status):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(job, "_produce", fail)
    code, result, out, state = go(made, data_folder)
    assert (code, result["status"]) == (0, status)
    assert str(error) in result["error"]["message"]
    assert result["error"]["tail"][-1].endswith(str(error))
    with np.load(out / "embeddings.npz") as file:
        assert file["embeddings"].shape == (0, 16)
    assert pq.read_table(out / "history.parquet").num_rows == (status == "diverged")
    assert not (state / "attempts.json").exists()


def test_a_checkpoint_outlives_a_failure_that_may_pass(made, data_folder, monkeypatch):
    def fail(_study, _run, _stores, state, _stop):
        (state / "checkpoint.pt").write_text("learnt")
        raise torch.OutOfMemoryError("busy")

    monkeypatch.setattr(job, "_produce", fail)
    *_, state = go(made, data_folder)
    assert (state / "checkpoint.pt").read_text() == "learnt"


def test_nearly_out_of_minutes_it_asks_to_be_called_again(made, data_folder):
    code, result, *_ = go(made, data_folder, minutes=1e-6)
    assert (code, result) == (job.TRY_AGAIN, None)
    code, result, *_ = go(made, data_folder)
    assert (code, result["status"]) == (0, "ok")


def test_a_run_whose_minutes_are_over_before_its_first_step_ends_as_timeout(made, data_folder):
    for _ in range(2):
        assert go(made, data_folder, minutes=1e-6)[0] == job.TRY_AGAIN
    code, result, *_ = go(made, data_folder, minutes=1e-6)
    assert (code, result["status"]) == (0, "timeout")


def test_who_waits_for_a_gpu_hears_the_wish_to_stop(made, data_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(job, "visible_gpus", lambda: ["GPU-a"])
    with lease(["GPU-a"]):
        code, result, *_ = go(made, data_folder, minutes=1e-6)
    assert (code, result) == (job.TRY_AGAIN, None)


def test_a_run_has_its_gpu_with_as_many_others_as_the_study_says(
    tiny, made, data_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(job, "visible_gpus", lambda: ["GPU-a"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    seen = []

    def produce(*_):
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        return [], np.zeros((1, 16), np.float32), np.zeros(1, np.int32)

    monkeypatch.setattr(job, "_produce", produce)
    made = study.check(tiny | {"runs_per_gpu": 2}, "tiny")
    with lease(["GPU-a"], 2):
        code, result, *_ = go(made, data_folder)
    assert (code, result["status"], seen) == (0, "ok", ["GPU-a"])


def test_embeddings_that_are_no_numbers_are_a_divergence(made, data_folder, monkeypatch):
    from dmlbench.training import train

    monkeypatch.setattr(
        train, "embed_test", lambda *_: (np.full((2, 16), np.nan, np.float32), np.arange(2))
    )
    _, result, out, _ = go(made, data_folder)
    assert result["status"] == "diverged"
    assert pq.read_table(out / "history.parquet").num_rows == 1


def test_a_store_of_other_facts_is_refused(made, data_folder, tmp_path):
    facts = {"version": 99, "recall_at": [1]}
    other = study.Study(made.settings, {PATH: dataclasses.replace(made.runs[PATH], facts=facts)})
    (name,) = other.stores
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / name).symlink_to(data_folder / "stores" / next(iter(made.stores)))
    _, result, *_ = go(other, tmp_path)
    assert result["status"] == "error"
    assert "Delete the folder" in result["error"]["message"]


@pytest.fixture
def elsewhere(tiny, tmp_path, data_folder, monkeypatch):
    """The tiny study, tested on four gray images of a CSV, whose store has pairs as well."""
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32), dtype=np.uint8)
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    rows = [f"{n}.png,{n // 2},{'train' if n < 4 else 'test'}" for n in range(8)]
    (tmp_path / "few.csv").write_text("\n".join(["path,label,split", *rows]))
    tiny["datasets"]["few"] = {"type": "csv", "file": "few.csv", "channels": 1}
    tiny["datasets"]["letters"]["test_on"] = "few"
    made = study.check(tiny, "tiny")
    trained, tested = made.runs[PATH].stores
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / trained).symlink_to(data_folder / "stores" / trained)
    pairs = [(4, 5, True, 0), (4, 6, False, 0), (6, 7, True, 1), (5, 7, False, 1)]
    monkeypatch.setattr(Csv, "pairs", lambda *_: pairs, raising=False)
    options = made.runs[PATH].tested.data.options
    pack("csv", 32, tmp_path / "stores" / tested, tmp_path, options=options)
    return made


@pytest.mark.parametrize("path", [PATH, "letters/tiny/control_random/seed0"])
def test_a_run_that_is_tested_elsewhere_embeds_and_scores_those_images(elsewhere, tmp_path, path):
    code, result, out, _ = go(elsewhere, tmp_path, path)
    assert (code, result["status"]) == (0, "ok")
    with np.load(out / "embeddings.npz") as file:
        assert file["id"].tolist() == [4, 5, 6, 7]
    evaluate_job(elsewhere, elsewhere.runs[path], tmp_path / "stores")
    rows = json.loads((out / "metrics.json").read_text())["metrics"]
    found = {(row["protocol"], row["metric"]): row["value"] for row in rows}
    assert found["zero_shot", "queries"] == 4
    assert found["verification", "pairs"] == 4
    assert 0 <= found["verification", "verification_accuracy"] <= 1


def test_what_an_orphan_has_finished_is_not_done_again(made, data_folder, monkeypatch, capsys):
    _, first, *_ = go(made, data_folder)
    monkeypatch.setattr(job, "_produce", None)  # called, it would fail
    code, second, _, state = go(made, data_folder)
    assert code == 0
    assert second == first
    assert not state.exists()


def test_a_result_of_other_settings_is_done_again(tiny, made, data_folder):
    _, first, *_ = go(made, data_folder)
    tiny["recipe"]["lr"] = 0.001
    _, second, *_ = go(study.check(tiny, "tiny"), data_folder)
    assert second["train_key"] != first["train_key"]


def test_attempts_that_die_silently_end_as_killed(made, data_folder, monkeypatch):
    def die(*arguments):
        raise SystemExit  # as SIGKILL: nothing is caught, nothing written

    monkeypatch.setattr(job, "_produce", die)
    for _ in range(2):
        with pytest.raises(SystemExit):
            go(made, data_folder)
    code, result, *_ = go(made, data_folder)
    assert (code, result["status"]) == (0, "killed")


def test_sigterm_saves_and_ends_with_75(tiny, tmp_path, data_folder):
    tiny["recipe"]["epochs"] = 400
    (tmp_path / "study.json").write_text(json.dumps(tiny))
    command = [sys.executable, "-m", "dmlbench", "train", "study.json", PATH]
    environment = {**os.environ, "DMLBENCH_DATA": str(data_folder)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment)
    state = tmp_path / "results/tiny/state" / PATH
    deadline = time.monotonic() + 120
    while not (state / "progress.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == job.TRY_AGAIN
    assert (state / "checkpoint.pt").is_file()
    assert json.loads((state / "attempts.json").read_text())["ended"] == "stopped"
    progress = json.loads((state / "progress.json").read_text())
    assert 0 < progress["step"] < progress["steps"]
    assert not list(Path(state).glob(".*"))
