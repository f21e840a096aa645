"""A probe times the real evaluation, on embeddings like those of a trained model."""

import json
import subprocess
import sys
import time

import pytest
import torch

from dmlbench.evaluation import probe
from dmlbench.gpus import SCORED_FROM


def test_it_scores_all_images_with_the_settings_that_are_asked_for(monkeypatch):
    scored = []
    monkeypatch.setattr(probe, "evaluate", lambda *given, device: scored.append(given))
    answer = probe.probe({"dim": 8, "threads": 3, "gpu": False}, time.time() - 1)
    ((vectors, ids, index, protocols, settings),) = scored
    assert vectors.shape == (answer["images"], 8)
    assert len(ids) == len(index["label"]) == len(protocols["id"]) == answer["images"]
    assert settings["threads"] == 3
    assert answer["start"] > 1


def test_on_a_gpu_it_scores_as_many_as_are_scored_there(monkeypatch):
    asked = []
    monkeypatch.setattr(probe, "evaluate", lambda *_, device: asked.append(device))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    answer = probe.probe({"dim": 8, "threads": 1, "gpu": True}, time.time())
    assert (asked, answer["images"]) == (["cuda"], SCORED_FROM)


def test_the_cpu_is_not_measured_in_the_name_of_a_gpu_that_torch_does_not_see(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="torch does not see the GPU"):
        probe.probe({"dim": 8, "threads": 1, "gpu": True}, time.time())


def test_it_runs_in_a_process_of_its_own_and_without_torch():
    spec = json.dumps({"dim": 8, "threads": 1, "gpu": False})
    began = time.time()
    call = [sys.executable, "-X", "importtime", "-m", "dmlbench.evaluation.probe", spec, str(began)]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert 0 < answer["start"] + answer["score"] < time.time() - began
    assert " torch\n" not in done.stderr
