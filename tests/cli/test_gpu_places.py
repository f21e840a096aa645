"""Every command that computes on a GPU holds a place there meanwhile."""

import json
import os
import sys

import pytest

from dmlbench import embed
from dmlbench.cli.main import main
from dmlbench.conformance import kit
from dmlbench.planning import probe_scoring, probe_training
from dmlbench.utils.errors import NoFreeGpu
from dmlbench.utils.gpu_lease import lease


@pytest.fixture
def computing(tmp_path, monkeypatch, use_gpus):
    """A machine with two GPUs, of which the first is in use; and a computation that checks that it
    has the other one to itself."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    use_gpus("GPU-a", "GPU-b")
    calls = []

    def compute(*arguments):
        calls.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
        with pytest.raises(NoFreeGpu), lease(["GPU-b"], 1, lambda: True):
            pass
        return {}

    with lease(["GPU-a"]):
        yield compute
    assert calls == ["GPU-b"]


def test_embed(computing, tiny, tmp_path, monkeypatch):
    (tmp_path / "study.json").write_text(json.dumps(tiny))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(embed, "embed", computing)
    run = "letters/tiny/proxy_anchor/seed0"
    with pytest.raises(SystemExit) as ending:
        main(["embed", "study.json", run, "images", "--output", "embeddings.npz"])
    assert ending.value.code == 0


def test_check(computing, monkeypatch):
    monkeypatch.setattr(kit, "check_loss", lambda *arguments: computing() == {})
    with pytest.raises(SystemExit) as ending:
        main(["check", "rll"])
    assert ending.value.code == 0


@pytest.mark.parametrize("probe", [probe_training, probe_scoring])
def test_the_probes(computing, monkeypatch, probe):
    monkeypatch.setattr(probe, "probe", computing)
    monkeypatch.setattr(sys, "argv", ["probe", '{"gpu": true}', "0.0"])
    probe.main()
