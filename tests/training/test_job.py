"""A job always writes a result, and loses nothing that was computed."""

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

from dmlbench.backbones.model import EmbeddingModel
from dmlbench.datasets.csv import Csv
from dmlbench.datasets.store.pack import pack
from dmlbench.datasets.store.part import Part
from dmlbench.evaluation.job import evaluate_job
from dmlbench.study.study import Study, check_study
from dmlbench.training import job
from dmlbench.training.embedding import embed_test
from dmlbench.training.resumable_job import TRY_AGAIN
from dmlbench.training.train import Diverged
from dmlbench.utils.errors import MissingWeights
from dmlbench.utils.fingerprint import code_digests

PATH = "letters/tiny/normalized_softmax/seed0"
HISTORY = [{"epoch": 1, "step": 9, "loss": 2.0, "seconds": 1.0, "images_per_second": 9.0}]


@pytest.fixture
def study(tiny, tmp_path, monkeypatch, data_folder):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMLBENCH_DATA", str(data_folder))
    return check_study(tiny, "tiny")


def run_job(study, stores, path=PATH, minutes=None):
    run = study.runs[path]
    code = job.train_job(study, run, stores / "stores", minutes)
    out = study.folder / "runs" / path
    result = json.loads((out / "run.json").read_text()) if (out / "run.json").is_file() else None
    return code, result, out, study.folder / "state" / path


def test_a_training_writes_its_embeddings_history_settings_and_provenance(
    study, data_folder, glyphs
):
    code, result, out, state = run_job(study, data_folder)
    assert (code, result["status"], result["error"]) == (0, "ok", None)
    run = study.runs[PATH]
    with np.load(out / "embeddings.npz") as file:
        test = glyphs.split("test", run.data.part)
        assert file["embeddings"].shape == (len(test.rows), 16)
        assert file["embeddings"].dtype == np.float32
        assert np.array_equal(file["id"], test.rows)
        assert str(file["train_key"]) == run.train_key
    history = pq.read_table(out / "history.parquet").to_pylist()
    assert [row["epoch"] for row in history] == [1]
    assert result["settings"] == json.loads(json.dumps(run.settings))
    assert result["code"] == code_digests(*run.modules)
    assert "dmlbench.losses.normalized_softmax" in result["code"]
    assert result["provenance"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert result["provenance"]["images_per_second"] > 0
    assert result["provenance"]["float32"] == "ieee"
    assert result["provenance"]["nondeterministic"] == []
    classes = len(glyphs.split("train", Part(0.1)).class_names)
    assert result["provenance"]["loss_parameters"] == classes * 16  # a proxy for each class
    assert {*result["files"]} == {"history.parquet", "embeddings.npz"}
    assert not state.exists()


def test_the_kept_model_computes_the_same_embeddings(tiny, study, data_folder, glyphs):
    tiny["keep_model"] = True
    keeping = check_study(tiny, "tiny")
    _, result, out, _ = run_job(keeping, data_folder)
    assert (result["status"], result["error"]) == ("ok", None)
    run = keeping.runs[PATH]
    model = EmbeddingModel(run.model, run.recipe, channels=1)
    model.load_state_dict(load_file(out / "model.safetensors"))
    with np.load(out / "embeddings.npz") as file:
        again, _ = embed_test(model, glyphs, torch.device("cpu"), run)
        assert np.array_equal(file["embeddings"], again)
    (out / "run.json").unlink()
    run_job(study, data_folder)  # a study that does not keep the model
    assert not (out / "model.safetensors").exists()


def test_the_artefact_of_a_loss_has_the_names_of_its_classes(tiny, study, data_folder):
    tiny["plan"]["losses"] = ["htl"]
    tiny["losses"] = {"htl": {"warmup_epochs": 0, "neighbours": 2}}
    study, path = check_study(tiny, "tiny"), "letters/tiny/htl/seed0"
    _, result, out, _ = run_job(study, data_folder, path)
    assert (result["status"], result["error"]) == ("ok", None)
    assert "artefacts/loss.json" in result["files"]
    artefact = json.loads((out / "artefacts/loss.json").read_text())
    assert artefact["train_key"] == study.runs[path].train_key
    scripts = {"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN"}
    names = [name.split()[1] for name in artefact["classes"]]  # "U+0061 LATIN SMALL LETTER A"
    assert [name.upper() for name in artefact["super_classes"]["level_1"]] == names
    assert {*names} == scripts
    learnt = artefact["learnt"]
    assert len(learnt["spread"]) == len(names)
    assert [merge[3] for merge in learnt["merges"]][-1] == len(names) == len(learnt["merges"]) + 1


def test_a_result_without_its_artefact_is_computed_again_and_a_failure_has_none(
    tiny, study, data_folder, monkeypatch
):
    tiny["plan"]["losses"] = ["softtriple"]
    study, path = check_study(tiny, "tiny"), "letters/tiny/softtriple/seed0"
    _, first, out, _ = run_job(study, data_folder, path)
    artefact = out / "artefacts/loss.json"
    written = artefact.read_text()
    artefact.unlink()
    _, second, *_ = run_job(study, data_folder, path)
    assert artefact.read_text() == written
    assert second["provenance"] != first["provenance"]

    # a failure that replaces a result
    tiny["recipe"]["lr"] = 0.001
    failing = check_study(tiny, "tiny")
    monkeypatch.setattr(job, "_compute", lambda *_: 1 / 0)
    _, failed, *_ = run_job(failing, data_folder, path)
    assert failed["status"] == "error"
    assert "artefacts/loss.json" not in failed["files"]
    assert not artefact.exists()


@pytest.mark.parametrize("control", ["random", "untrained", "untrained_pca", "frozen", "oracle"])
def test_a_control_gives_embeddings_without_a_training(tiny, study, data_folder, control, glyphs):
    tiny["plan"]["controls"] = [control]
    study = check_study(tiny, "tiny")
    path = f"letters/tiny/control_{control}/seed0"
    code, result, out, _ = run_job(study, data_folder, path)
    assert (code, result["status"]) == (0, "ok")
    test = glyphs.split("test", Part(0.1))
    with np.load(out / "embeddings.npz") as file:
        vectors = file["embeddings"]
    assert vectors.shape == (len(test.rows), 96 if control == "frozen" else 16)
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
def test_a_failure_is_written_as_a_result(study, data_folder, monkeypatch, error, status):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(job, "_compute", fail)
    code, result, out, state = run_job(study, data_folder)
    assert (code, result["status"]) == (0, status)
    assert str(error) in result["error"]["message"]
    assert result["error"]["tail"][-1].endswith(str(error))
    with np.load(out / "embeddings.npz") as file:
        assert file["embeddings"].shape == (0, 16)
    assert pq.read_table(out / "history.parquet").num_rows == (status == "diverged")
    assert not (state / "attempts.json").exists()


def test_a_checkpoint_is_kept_after_a_failure_that_may_be_temporary(
    study, data_folder, monkeypatch
):
    def fail(study, run, *_):
        (study.files.run(run.path).state / "checkpoint.pt").write_text("learnt")
        raise torch.OutOfMemoryError("busy")

    monkeypatch.setattr(job, "_compute", fail)
    *_, state = run_job(study, data_folder)
    assert (state / "checkpoint.pt").read_text() == "learnt"


def test_a_job_that_is_nearly_out_of_time_asks_to_be_started_again(study, data_folder):
    code, result, *_ = run_job(study, data_folder, minutes=1e-6)
    assert (code, result) == (TRY_AGAIN, None)
    code, result, *_ = run_job(study, data_folder)
    assert (code, result["status"]) == (0, "ok")


def test_a_run_that_is_always_out_of_time_before_its_first_step_is_a_timeout(study, data_folder):
    for _ in range(2):
        assert run_job(study, data_folder, minutes=1e-6)[0] == TRY_AGAIN
    code, result, *_ = run_job(study, data_folder, minutes=1e-6)
    assert (code, result["status"]) == (0, "timeout")


def test_embeddings_that_are_not_finite_are_a_divergence(study, data_folder, monkeypatch):
    from dmlbench.training import embedding

    monkeypatch.setattr(
        embedding, "embed_test", lambda *_: (np.full((2, 16), np.nan, np.float32), np.arange(2))
    )
    _, result, out, _ = run_job(study, data_folder)
    assert result["status"] == "diverged"
    assert pq.read_table(out / "history.parquet").num_rows == 1


def test_a_store_with_other_facts_is_refused(study, data_folder, tmp_path):
    facts = {"version": 99, "recall_at": [1]}
    other = Study(study.settings, {PATH: dataclasses.replace(study.runs[PATH], facts=facts)})
    (name,) = other.stores
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / name).symlink_to(data_folder / "stores" / next(iter(study.stores)))
    _, result, *_ = run_job(other, tmp_path)
    assert result["status"] == "error"
    assert "Delete the folder" in result["error"]["message"]


@pytest.fixture
def tested_on_another(tiny, tmp_path, data_folder, monkeypatch):
    """The tiny study, tested on four gray images of a CSV whose store has pairs as well."""
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32), dtype=np.uint8)
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    rows = [f"{n}.png,{n // 2},{'train' if n < 4 else 'test'}" for n in range(8)]
    (tmp_path / "few.csv").write_text("\n".join(["path,label,split", *rows]))
    tiny["datasets"]["few"] = {"type": "csv", "file": "few.csv", "channels": 1}
    tiny["datasets"]["letters"]["test_on"] = "few"
    study = check_study(tiny, "tiny")
    trained, tested = study.runs[PATH].stores
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / trained).symlink_to(data_folder / "stores" / trained)
    pairs = [(4, 5, True, 0), (4, 6, False, 0), (6, 7, True, 1), (5, 7, False, 1)]
    monkeypatch.setattr(Csv, "pairs", lambda *_: pairs, raising=False)
    options = study.runs[PATH].tested.data.options
    pack("csv", 32, tmp_path / "stores" / tested, tmp_path, options=options)
    return study


@pytest.mark.parametrize("path", [PATH, "letters/tiny/control_random/seed0"])
def test_a_run_that_is_tested_on_another_data_set_embeds_and_scores_its_images(
    tested_on_another, tmp_path, path
):
    code, result, out, _ = run_job(tested_on_another, tmp_path, path)
    assert (code, result["status"]) == (0, "ok")
    with np.load(out / "embeddings.npz") as file:
        assert file["id"].tolist() == [4, 5, 6, 7]
    evaluate_job(tested_on_another, tested_on_another.runs[path], tmp_path / "stores")
    rows = json.loads((out / "metrics.json").read_text())["metrics"]
    scores = {(row["protocol"], row["metric"]): row["value"] for row in rows}
    assert scores["zero_shot", "queries"] == 4
    assert scores["verification", "pairs"] == 4
    assert 0 <= scores["verification", "verification_accuracy"] <= 1


def test_a_result_that_another_trainer_has_finished_is_not_computed_again(
    study, data_folder, monkeypatch, capsys
):
    _, first, *_ = run_job(study, data_folder)
    monkeypatch.setattr(job, "_compute", None)  # it would fail if it were called
    code, second, _, state = run_job(study, data_folder)
    assert code == 0
    assert second == first
    assert not state.exists()


def test_a_result_of_other_settings_is_computed_again(tiny, study, data_folder):
    _, first, *_ = run_job(study, data_folder)
    tiny["recipe"]["lr"] = 0.001
    _, second, *_ = run_job(check_study(tiny, "tiny"), data_folder)
    assert second["train_key"] != first["train_key"]


def test_a_run_whose_attempts_die_silently_is_killed(study, data_folder, monkeypatch):
    def die(*arguments):
        raise SystemExit  # like SIGKILL: nothing is caught, nothing is written

    monkeypatch.setattr(job, "_compute", die)
    for _ in range(2):
        with pytest.raises(SystemExit):
            run_job(study, data_folder)
    code, result, *_ = run_job(study, data_folder)
    assert (code, result["status"]) == (0, "killed")


def test_sigterm_saves_the_training_and_ends_the_job_with_75(tiny, tmp_path, data_folder):
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
    assert process.wait(30) == TRY_AGAIN
    assert (state / "checkpoint.pt").is_file()
    assert json.loads((state / "attempts.json").read_text())["ended"] == "stopped"
    progress = json.loads((state / "progress.json").read_text())
    assert 0 < progress["step"] < progress["steps"]
    assert not list(Path(state).glob(".*"))
