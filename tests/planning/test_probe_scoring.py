"""The probe times the real evaluation, on embeddings like those of a trained model."""

import json
import subprocess
import sys
import time

import pytest
import torch

from dmlbench.planning import probe_scoring, probe_training
from dmlbench.study.run import GPU_SCORING_IMAGES
from dmlbench.utils.errors import UnusableGpu


def test_it_scores_all_embeddings_with_the_settings_of_the_spec(monkeypatch):
    calls = []
    monkeypatch.setattr(
        probe_scoring, "evaluate", lambda *given, device, clusters: calls.append((clusters, given))
    )
    answer = probe_scoring.probe({"dim": 8, "threads": 3, "gpu": False}, time.time() - 1)
    assert [clusters for clusters, _ in calls] == [True, False]  # a scoring, and a validation
    embeddings, ids, index, protocols, settings = calls[0][1]
    assert embeddings.shape == (answer["images"], 8)
    assert len(ids) == len(index["label"]) == len(protocols["id"]) == answer["images"]
    assert settings["threads"] == 3
    assert answer["start"] > 1


def test_on_a_gpu_it_scores_as_many_embeddings_as_are_scored_there(monkeypatch):
    devices = []
    monkeypatch.setattr(
        probe_scoring, "evaluate", lambda *_, device, clusters: devices.append(device)
    )
    monkeypatch.setattr(probe_scoring, "choose_device", lambda: torch.device("cuda"))
    answer = probe_scoring.probe({"dim": 8, "threads": 1, "gpu": True}, time.time())
    assert (devices, answer["images"]) == (["cuda"] * 2, GPU_SCORING_IMAGES)


@pytest.mark.parametrize("probe", [probe_scoring, probe_training])
def test_a_gpu_that_cannot_be_used_ends_the_probe_with_the_reason(monkeypatch, probe):
    def refuse(*_):
        raise UnusableGpu("torch cannot compute on the GPU")

    monkeypatch.setattr(probe, "probe", refuse)
    monkeypatch.setattr(sys, "argv", ["probe", json.dumps({"gpu": True}), "0"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SystemExit, match=r"^torch cannot compute on the GPU$"):
        probe.main()


def test_a_probe_does_not_measure_the_cpu_in_place_of_a_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5c1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnusableGpu, match="CUDA_VISIBLE_DEVICES=GPU-5c1"):
        probe_scoring.probe({"dim": 8, "threads": 1, "gpu": True}, time.time())


def test_it_runs_in_a_process_of_its_own_without_torch():
    spec = json.dumps({"dim": 8, "threads": 1, "gpu": False})
    began = time.time()
    arguments = ["-X", "importtime", "-m", probe_scoring.__name__, spec, str(began)]
    process = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True
    )
    answer = json.loads(process.stdout)
    assert 0 < answer["validate"] < answer["score"]
    assert answer["start"] + answer["score"] + answer["validate"] < time.time() - began
    assert " torch\n" not in process.stderr
