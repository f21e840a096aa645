"""The probe times the real evaluation, on embeddings like those of a trained model."""

import json
import subprocess
import sys
import time

import pytest
import torch

from dmlbench.planning import probe_scoring
from dmlbench.study.run import GPU_SCORING_IMAGES


def test_it_scores_all_embeddings_with_the_settings_of_the_spec(monkeypatch):
    calls = []
    monkeypatch.setattr(probe_scoring, "evaluate", lambda *given, device: calls.append(given))
    answer = probe_scoring.probe({"dim": 8, "threads": 3, "gpu": False}, time.time() - 1)
    ((embeddings, ids, index, protocols, settings),) = calls
    assert embeddings.shape == (answer["images"], 8)
    assert len(ids) == len(index["label"]) == len(protocols["id"]) == answer["images"]
    assert settings["threads"] == 3
    assert answer["start"] > 1


def test_on_a_gpu_it_scores_as_many_embeddings_as_are_scored_there(monkeypatch):
    devices = []
    monkeypatch.setattr(probe_scoring, "evaluate", lambda *_, device: devices.append(device))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    answer = probe_scoring.probe({"dim": 8, "threads": 1, "gpu": True}, time.time())
    assert (devices, answer["images"]) == (["cuda"], GPU_SCORING_IMAGES)


def test_a_gpu_that_torch_does_not_see_ends_the_probe(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="torch does not see the GPU"):
        probe_scoring.probe({"dim": 8, "threads": 1, "gpu": True}, time.time())


def test_it_runs_in_a_process_of_its_own_without_torch():
    spec = json.dumps({"dim": 8, "threads": 1, "gpu": False})
    began = time.time()
    arguments = ["-X", "importtime", "-m", probe_scoring.__name__, spec, str(began)]
    process = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True
    )
    answer = json.loads(process.stdout)
    assert 0 < answer["start"] + answer["score"] < time.time() - began
    assert " torch\n" not in process.stderr
