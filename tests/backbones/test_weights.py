"""Staging of timm's weights, from a folder with the layout of huggingface_hub's cache."""

import os
import subprocess
import sys
from hashlib import sha256

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from dmlbench.backbones import weights
from dmlbench.backbones.timm import create_trunk
from dmlbench.backbones.weights import digest_file, fetch_weights, staged_weights, weights_file
from dmlbench.utils.errors import MissingWeights

NAME = "test_resnet.r160_in1k"


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("DMLBENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def hub(tmp_path):
    """A hub with one model and its classifier: the state, and the environment that leads there."""
    torch.manual_seed(3)
    state = timm.create_model("test_resnet").state_dict()
    repository = tmp_path / "hub" / f"models--timm--{NAME}"
    (repository / "snapshots/c0ffee").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("c0ffee")
    save_file(state, repository / "snapshots/c0ffee/model.safetensors", {"format": "pt"})
    return state, {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}


def run_command(model, environment):
    """Run `dmlbench weights`."""
    return subprocess.run(
        [sys.executable, "-m", "dmlbench", "weights", model],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_weights_are_staged_once_without_their_classifier(hub, data):
    state, environment = hub
    done = run_command("test_resnet", environment)
    assert done.returncode == 0, done.stderr
    path = data / "weights" / f"{NAME}.safetensors"
    assert done.stdout.splitlines()[-1] == str(path)
    staged_state = load_file(path)
    assert staged_state.keys() == {name for name in state if not name.startswith("fc.")}
    assert all(torch.equal(value, state[name]) for name, value in staged_state.items())
    assert staged_weights("test_resnet") == staged_weights(NAME) == path
    assert {file.name for file in path.parent.iterdir()} == {path.name, f"{path.name}.sha256"}
    digest = sha256(path.read_bytes()).hexdigest()
    assert digest_file(path).read_text() == f"{digest}  {path.name}\n"


def test_staged_weights_are_not_fetched_again(data, monkeypatch):
    path = weights_file("test_resnet")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"there")
    monkeypatch.setattr(timm, "create_model", None)  # a call would fail
    assert fetch_weights("test_resnet") == fetch_weights(NAME) == path
    assert path.read_bytes() == b"there"


@pytest.mark.parametrize(
    "environment",
    [
        {"HF_HUB_OFFLINE": "1"},
        pytest.param(  # the hub's client tries for most of a minute
            {"HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}, marks=pytest.mark.slow
        ),
    ],
)
def test_without_internet_the_command_says_what_to_do(data, tmp_path, environment):
    done = run_command("test_resnet", {"HF_HUB_CACHE": str(tmp_path / "empty"), **environment})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2].startswith(f"dmlbench: cannot fetch {NAME} from timm's hub")
    assert f"copy its file to {data}/weights/{NAME}.safetensors" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(data.rglob("*safetensors*"))


def test_a_model_without_weights_is_refused(data):
    without = next(name for name in timm.list_models() if name not in weights.timm_weights())
    with pytest.raises(MissingWeights, match=f"timm has no weights for {without}"):
        fetch_weights(without)


def test_an_unknown_model_is_refused_with_the_nearest_name(data):
    with pytest.raises(
        MissingWeights, match=r"no model 'bn_inceptio'\. Did you mean 'bn_inception'"
    ):
        fetch_weights("bn_inceptio")


def test_the_error_names_a_folder_that_cannot_be_written(hub, data):
    data.mkdir()
    (data / "weights").write_text("no folder")
    done = run_command("test_resnet", hub[1])
    assert done.returncode == 1
    assert str(data / "weights") in done.stderr
    assert "cannot be written" in done.stderr
    assert "DMLBENCH_DATA" in done.stderr
    assert "Traceback" not in done.stderr


def build():
    """The model that starts from the staged weights."""
    return create_trunk("test_resnet", channels=3, image_size=32, pooling=None, pretrained=True)[0]


@pytest.fixture
def staged(data):
    """Staged weights with their digest."""
    path = weights_file("test_resnet")
    path.parent.mkdir(parents=True)
    torch.manual_seed(3)
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), path)
    digest_file(path).write_text(f"{sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    return path


def test_a_changed_bit_of_staged_weights_is_refused_with_the_way_to_mend_it(staged):
    build()
    right = staged.read_bytes()
    for place in np.random.default_rng(0).integers(8 * len(right), size=20):
        content = bytearray(right)
        content[place // 8] ^= 1 << place % 8
        staged.write_bytes(content)
        with pytest.raises(MissingWeights) as refused:
            build()
        assert str(refused.value) == (
            f"{staged} is damaged: its sha256 is not the one in {staged.name}.sha256. Delete both "
            f"files: `snakemake` and `dmlbench weights` fetch timm's weights again"
        )
    staged.write_bytes(right[:-1])
    with pytest.raises(MissingWeights, match="is damaged"):
        build()


def test_staged_weights_that_came_without_a_digest_are_used(staged):
    digest_file(staged).unlink()
    expected = load_file(staged)
    assert all(torch.equal(value, expected[name]) for name, value in build().state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(staged, value):
    digest_file(staged).unlink()
    state = load_file(staged)
    name = next(name for name in state if name.endswith("running_var"))
    state[name].view(-1)[-1] = value
    save_file(state, staged)
    with pytest.raises(MissingWeights, match=rf"{staged}: {name} has values that are NaN or"):
        build()
    with pytest.raises(MissingWeights, match=rf"{name} has values that are NaN or infinite"):
        create_trunk("test_resnet", channels=3, image_size=32, pooling=None, pretrained=str(staged))


def test_weights_come_over_an_encrypted_connection():
    import dmlbench.backbones.bn_inception  # noqa: F401 (it registers its weights with timm)

    config = timm.get_pretrained_cfg("bn_inception.caffe_in1k")
    assert config.url.startswith("https://")
