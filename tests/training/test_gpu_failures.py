"""A training whose GPU cannot be used, or fails, ends with a result that says so. CUDA is made."""

import json
import sys

import numpy as np
import pytest
import torch

from dmlbench.study.study import check_study
from dmlbench.training import embedding, job, resumable_job, train
from dmlbench.training.resumable_job import TRY_AGAIN
from dmlbench.utils.errors import UnusableGpu, UserError

PATH = "letters/tiny/normalized_softmax/seed0"
ILLEGAL = torch.AcceleratorError("CUDA error: an illegal memory access was encountered\n[...]")
GPU_FACTS = {
    "device": "Made GPU 200",
    "compute_capability": "9.0",
    "driver": "580.65.06",
    "cuda": torch.version.cuda,
}


@pytest.fixture
def run_job(tiny, tmp_path, monkeypatch, data_folder):
    """Train one run; give the exit code, run.json if there is one, and the state folder."""
    monkeypatch.chdir(tmp_path)
    tiny["plan"]["controls"] = ["random", "untrained"]
    study = check_study(tiny, "tiny")

    def call(path=PATH):
        files = study.files.run(path)
        code = job.train_job(study, study.runs[path], data_folder / "stores", None)
        result = json.loads(files.run.read_text()) if files.run.is_file() else None
        return code, result, files

    return call


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that computes, by its name only. Calling `gpu` breaks its context for ever."""
    monkeypatch.setattr(resumable_job, "choose_device", lambda precision: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Made GPU 200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("dmlbench.training.provenance.driver_version", lambda: "580.65.06")

    def fail(*_, **__):
        raise torch.AcceleratorError("CUDA error: the context is broken")

    def break_context():
        for name in dir(torch.cuda):
            if name.islower() and name[0] != "_" and callable(getattr(torch.cuda, name)):
                monkeypatch.setattr(torch.cuda, name, fail)
        # a flag of Python's: it asks the GPU nothing
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)

    return break_context


def fails(error, prepare=lambda: None):
    def fail(*_):
        prepare()
        raise error

    return fail


def test_the_result_of_a_failure_is_written_though_the_gpu_answers_nothing_more(
    run_job, gpu, monkeypatch
):
    monkeypatch.setattr(train, "train", fails(ILLEGAL, gpu))
    code, result, _ = run_job()
    assert (code, result["status"]) == (0, "error")
    assert result["error"]["message"] == (
        "AcceleratorError: CUDA error: an illegal memory access was encountered"
    )
    assert GPU_FACTS.items() <= result["provenance"].items()
    assert result["provenance"]["peak_memory_mb"] is None
    assert result["provenance"]["train_seconds"] == 0


def test_the_frames_of_a_failed_gpu_are_kept_as_freeing_its_memory_may_abort_the_process(
    run_job, gpu, monkeypatch
):
    kept = []
    monkeypatch.setattr("dmlbench.training.process._kept", kept)
    monkeypatch.setattr(train, "train", fails(ZeroDivisionError("x")))
    run_job()
    assert kept == []
    monkeypatch.setattr(train, "train", fails(ILLEGAL, gpu))
    run_job()
    assert kept == [ILLEGAL]


def test_a_failure_is_written_though_torch_itself_is_broken(run_job, monkeypatch):
    def fail(*_):
        monkeypatch.setitem(sys.modules, "torch", None)  # its import raises now
        raise ImportError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(job, "_compute", fail)
    code, result, _ = run_job()
    assert (code, result["status"]) == (0, "error")
    assert result["error"]["message"].startswith("ImportError: libcudart.so.13")
    assert "device" not in result["provenance"]
    assert "train_seconds" not in result["provenance"]  # nobody has trained


def test_a_training_on_a_gpu_records_it_and_the_peak_of_its_memory(run_job, gpu, monkeypatch):
    class Loss:
        def artefact(self):
            return None

        def parameters(self):
            return []

    vectors = np.ones((2, 16), np.float32), np.arange(2, dtype=np.int32)
    monkeypatch.setattr(train, "train", lambda *_: (None, Loss(), []))
    monkeypatch.setattr(embedding, "embed_test", lambda *_: vectors)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    code, result, _ = run_job()
    assert (code, result["status"]) == (0, "ok")
    assert GPU_FACTS.items() <= result["provenance"].items()
    assert result["provenance"]["peak_memory_mb"] == 3.0


def test_a_gpu_that_cannot_be_used_is_tried_again_and_then_the_reason_of_the_failure(
    run_job, monkeypatch
):
    reason = "torch cannot compute on the GPU of this job on node7: no kernel image"
    monkeypatch.setattr(resumable_job, "choose_device", fails(UnusableGpu(reason)))
    for _ in range(2):
        code, result, files = run_job()
        assert (code, result) == (TRY_AGAIN, None)
        assert json.loads((files.state / "attempts.json").read_text())["ended"] == "unusable_gpu"
    code, result, _ = run_job()
    assert (code, result["status"]) == (0, "unusable_gpu")
    assert result["error"]["message"] == (
        f"2 attempts in a row ended without progress. The last one: {reason}"
    )


def test_a_precision_that_the_gpu_does_not_have_is_an_error_at_once(run_job, monkeypatch):
    asked = []

    def refuse(precision):
        asked.append(precision)
        raise UserError("recipe.gpu_precision: bfloat16 needs a GPU of compute capability 8.0")

    monkeypatch.setattr(resumable_job, "choose_device", refuse)
    code, result, files = run_job()
    assert (code, result["status"], asked) == (0, "error", ["bfloat16"])
    assert result["error"]["message"].startswith("recipe.gpu_precision: bfloat16 needs")
    assert not (files.state / "attempts.json").exists()


@pytest.mark.parametrize("control", ["random", "untrained"])
def test_only_a_run_with_a_model_asks_for_a_gpu(run_job, monkeypatch, control):
    asked = []

    def choose(precision):
        asked.append(precision)
        return torch.device("cpu")

    monkeypatch.setattr(resumable_job, "choose_device", choose)
    _, result, _ = run_job(f"letters/tiny/control_{control}/seed0")
    assert asked == ([] if control == "random" else ["bfloat16"])
    assert result["provenance"]["device"].startswith("cpu (")
    assert result["provenance"]["driver"] is None
