"""Staging of timm's weights, from a hub that is a folder: huggingface_hub's own cache layout."""

import os
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from dmlbench.backbones import weights
from dmlbench.backbones.weights import MissingWeights, stage, staged, weights_file

NAME = "test_resnet.r160_in1k"


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("DMLBENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def hub(tmp_path):
    """A hub with one model, its classifier included; its state and the environment to find it."""
    torch.manual_seed(3)
    state = timm.create_model("test_resnet").state_dict()
    repository = tmp_path / "hub" / f"models--timm--{NAME}"
    (repository / "snapshots/c0ffee").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("c0ffee")
    save_file(state, repository / "snapshots/c0ffee/model.safetensors", {"format": "pt"})
    return state, {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}


def call(model, environment):
    """`dmlbench weights`, as the rule calls it."""
    return subprocess.run(
        [sys.executable, "-m", "dmlbench", "weights", model],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_weights_are_staged_once_without_their_classifier(hub, data):
    state, environment = hub
    done = call("test_resnet", environment)
    assert done.returncode == 0, done.stderr
    path = data / "weights" / f"{NAME}.safetensors"
    assert done.stdout.splitlines()[-1] == str(path)
    found = load_file(path)
    assert found.keys() == {name for name in state if not name.startswith("fc.")}
    assert all(torch.equal(found[name], state[name]) for name in found)
    assert staged("test_resnet") == staged(NAME) == path
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_is_staged_is_not_fetched_again(data, monkeypatch):
    path = weights_file("test_resnet")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"there")
    monkeypatch.setattr(timm, "create_model", None)  # called, it would fail
    assert stage("test_resnet") == stage(NAME) == path
    assert path.read_bytes() == b"there"


@pytest.mark.parametrize(
    "environment",
    [
        {"HF_HUB_OFFLINE": "1"},
        pytest.param(  # the hub's client tries again for most of a minute
            {"HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}, marks=pytest.mark.slow
        ),
    ],
)
def test_without_internet_the_command_says_what_to_do(data, tmp_path, environment):
    done = call("test_resnet", {"HF_HUB_CACHE": str(tmp_path / "empty"), **environment})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2].startswith(f"dmlbench: cannot fetch {NAME} from timm's hub")
    assert f"copy its file to {data}/weights/{NAME}.safetensors" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(data.rglob("*safetensors*"))


def test_a_model_without_weights_is_refused(data):
    without = next(name for name in timm.list_models() if name not in weights.timm_weights())
    with pytest.raises(MissingWeights, match=f"timm has no weights of {without}"):
        stage(without)


def test_a_model_that_there_is_not_is_refused_with_the_nearest_name(data):
    with pytest.raises(
        MissingWeights, match=r"no model 'bn_inceptio'\. Did you mean 'bn_inception'"
    ):
        stage("bn_inceptio")


def test_a_folder_that_cannot_be_written_is_named(hub, data):
    data.write_text("no folder")
    done = call("test_resnet", hub[1])
    assert done.returncode == 1
    assert str(data / "weights") in done.stderr
    assert "cannot be written" in done.stderr
    assert "DMLBENCH_DATA" in done.stderr
    assert "Traceback" not in done.stderr
