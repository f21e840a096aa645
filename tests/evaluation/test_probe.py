"""A probe times the real evaluation, on embeddings like those of a trained model."""

import json
import subprocess
import sys
import time

from dmlbench.evaluation import probe


def test_it_scores_all_images_with_the_settings_that_are_asked_for(monkeypatch):
    scored = []
    monkeypatch.setattr(probe, "evaluate", lambda *given: scored.append(given))
    answer = probe.probe({"dim": 8, "threads": 3}, time.time() - 1)
    ((vectors, ids, index, protocols, settings),) = scored
    assert vectors.shape == (answer["images"], 8)
    assert len(ids) == len(index["label"]) == len(protocols["id"]) == answer["images"]
    assert settings["threads"] == 3
    assert answer["start"] > 1


def test_it_runs_in_a_process_of_its_own_and_without_torch():
    spec = json.dumps({"dim": 8, "threads": 1})
    began = time.time()
    call = [sys.executable, "-X", "importtime", "-m", "dmlbench.evaluation.probe", spec, str(began)]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert 0 < answer["start"] + answer["score"] < time.time() - began
    assert " torch\n" not in done.stderr
