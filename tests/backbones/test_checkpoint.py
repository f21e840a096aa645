"""Checkpoints of people are read in whatever way they were saved, and others are refused."""

import argparse
import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dmlbench.backbones import weights
from dmlbench.backbones.checkpoint import read_checkpoint
from dmlbench.backbones.timm import create_trunk
from dmlbench.utils.errors import MissingWeights

KINDS = {
    "test_resnet": 160,
    "test_vit": 160,
    "test_efficientnet": 160,
    "test_convnext": 160,
    "levit_128s": 224,
}
"""Model -> its own size of images: at another one, position embeddings are resampled."""
LITE0 = Path(__file__).parents[3] / "shared/data/weights/tf_efficientnet_lite0.safetensors"


@pytest.fixture(scope="module")
def whole():
    """The state of test_resnet with its classifier."""
    torch.manual_seed(1)
    return timm.create_model("test_resnet").state_dict()


def load(kind, path, size=160, channels=3):
    trunk, _ = create_trunk(
        kind, channels=channels, image_size=size, pooling=None, pretrained=str(path)
    )
    return trunk.state_dict()


def with_prefix(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def zeros_like(state):
    return {name: torch.zeros_like(value) for name, value in state.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_checkpoint_is_loaded_without_its_classifier(kind, tmp_path):
    torch.manual_seed(1)
    state = timm.create_model(kind).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        learnt = load(kind, tmp_path / name, KINDS[kind])
        assert learnt.keys() < state.keys()
        assert all(torch.equal(value, state[name]) for name, value in learnt.items())


@pytest.mark.skipif(not LITE0.is_file(), reason="needs the shared weights")
def test_a_real_full_checkpoint_is_loaded():
    learnt = load("tf_efficientnet_lite0", LITE0, 64)
    with safe_open(LITE0, framework="pt") as file:
        assert len(learnt) == 294 == len(file.keys()) - 2
        assert all(torch.equal(value, file.get_tensor(name)) for name, value in learnt.items())
        # the same weights, if the package is installed
        if importlib.util.find_spec(weights.PACKAGES["tf_efficientnet_lite0"].module):
            packaged = load("tf_efficientnet_lite0", "package", 64)
            assert all(torch.equal(value, learnt[name]) for name, value in packaged.items())


SAVED = {
    "bare": lambda state: state,
    "module": lambda state: with_prefix("module.", state),
    "compiled": lambda state: with_prefix("_orig_mod.module.", state),
    "state_dict": lambda state: {
        "epoch": 3,
        "state_dict": with_prefix("module.", state),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
        "args": argparse.Namespace(lr=0.1),
        "best": np.float64(0.5),
    },
    "model": lambda state: {"model": state, "scaler": None},
    "model_state": lambda state: {"model_state": state},
    "averaged weights before others": lambda state: {
        "state_dict": zeros_like(state),
        "state_dict_ema": state,
    },
    "backbone beside a head": lambda state: {
        **with_prefix("backbone.", state),
        "head.weight": torch.zeros(2, 2),
    },
    "an own training": lambda state: {
        **with_prefix("trunk.", state),
        "head.weight": torch.zeros(2, 2),
    },
    "the first of two encoders": lambda state: {
        "state_dict": {
            **with_prefix("module.encoder_q.", state),
            **with_prefix("module.encoder_k.", zeros_like(state)),
        }
    },
}


@pytest.mark.parametrize("form", SAVED)
def test_weights_are_found_in_the_file_of_any_training_script(form, whole, tmp_path):
    torch.save(SAVED[form](whole), tmp_path / "w.pth")
    learnt = load("test_resnet", tmp_path / "w.pth")
    assert len(learnt) == len(whole) - 2
    assert all(torch.equal(value, whole[name]) for name, value in learnt.items())


def test_a_file_of_an_old_torch_is_read(whole, tmp_path):
    torch.save(whole, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    learnt = load("test_resnet", tmp_path / "w.pth")
    assert all(torch.equal(value, whole[name]) for name, value in learnt.items())


def test_position_embeddings_are_resampled_to_another_image_size(tmp_path):
    state = timm.create_model("test_vit").state_dict()
    torch.save(state, tmp_path / "w.pth")
    learnt = load("test_vit", tmp_path / "w.pth", size=64)
    assert state["pos_embed"].shape == (1, 101, 64)
    assert learnt["pos_embed"].shape == (1, 17, 64)


def test_colours_are_adapted_to_gray_images(whole, tmp_path):
    torch.save(whole, tmp_path / "w.pth")
    learnt = load("test_resnet", tmp_path / "w.pth", channels=1)
    assert torch.allclose(learnt["conv1.0.weight"], whole["conv1.0.weight"].sum(1, keepdim=True))


def test_reading_weights_draws_no_random_number(whole, tmp_path):
    torch.save(whole, tmp_path / "w.pth")
    torch.manual_seed(3)
    create_trunk("test_resnet", channels=3, image_size=32, pooling=None, pretrained=False)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load("test_resnet", tmp_path / "w.pth")
    assert torch.equal(torch.rand(1), expected)


def test_on_the_meta_device_only_shapes_are_read(whole, tmp_path):
    save_file(whole, tmp_path / "w.safetensors")
    torch.save(whole, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        with torch.device("meta"):
            state = read_checkpoint(tmp_path / name, whole)
        assert {name: value.shape for name, value in state.items()} == {
            name: value.shape for name, value in whole.items()
        }
        assert {value.device.type for value in state.values()} == {"meta"}


class Harmful:
    def __reduce__(self):
        return print, ("this code must not run",)


DAMAGED = {
    "text": (b"hello", "it is neither a safetensors file nor a file of torch.save"),
    "pointer of Git LFS": (b"version https://git-lfs", "neither a safetensors file nor"),
    "empty": (b"", "neither a safetensors file nor"),
    "other objects": (
        pickle.dumps(Harmful(), protocol=2),
        "holds Python objects that are not read",
    ),
    "torn zip": (b"PK\3\4 torn", "cannot be read"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_file_that_holds_no_weights_is_refused_with_its_name(case, tmp_path, capsys):
    content, message = DAMAGED[case]
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(MissingWeights, match=message) as caught:
        read_checkpoint(tmp_path / "w.pth", {"a"})
    assert str(caught.value).startswith(f"{tmp_path}/w.pth ")
    assert capsys.readouterr().out == ""


def test_torn_safetensors_are_refused(whole, tmp_path):
    save_file(whole, tmp_path / "w.safetensors")
    torn = (tmp_path / "w.safetensors").read_bytes()[:5000]
    (tmp_path / "w.safetensors").write_bytes(torn)
    with pytest.raises(MissingWeights, match=r"w\.safetensors cannot be read: .*Get it again"):
        read_checkpoint(tmp_path / "w.safetensors", {"a"})


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(MissingWeights, match="holds no tensors"):
        read_checkpoint(tmp_path / "w.pth", {"a"})


def test_a_whole_pickled_model_is_refused_with_the_fix(tmp_path):
    torch.save(timm.create_model("test_resnet"), tmp_path / "w.pth")
    with pytest.raises(MissingWeights, match=r"torch\.save\(model\.state_dict\(\), path\)"):
        load("test_resnet", tmp_path / "w.pth")


def test_what_differs_is_counted_and_named(whole, tmp_path):
    state = {**whole, "extra": torch.zeros(1), "conv1.0.weight": torch.zeros(2, 3, 3, 3)}
    del state["conv1.1.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(MissingWeights) as caught:
        load("test_resnet", tmp_path / "w.pth")
    assert str(caught.value) == (
        f"no weights of test_resnet from {tmp_path}/w.pth: 1 is missing (conv1.1.bias); 1 is "
        f"unknown to the model (extra); 1 has another shape (conv1.0.weight: [2, 3, 3, 3], not "
        f"{list(whole['conv1.0.weight'].shape)}). Give a file of this very model"
    )


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with weights whose names are not those of timm."""
    package = weights.Package("weights-of-mine", "mine", "weights_of_mine", "models/w.pth")
    monkeypatch.setitem(weights.PACKAGES, "test_resnet", package)
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "weights_of_mine"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").touch()
    return folder


def test_the_weights_of_a_package_are_taken_in_their_order(package, whole):
    named = {f"_{number}.weight": value for number, value in enumerate(whole.values())}
    torch.save(named, package / "models/w.pth")
    learnt = load("test_resnet", "package")
    assert all(torch.equal(value, whole[name]) for name, value in learnt.items())


def test_a_package_without_its_file_is_refused(package):
    with pytest.raises(MissingWeights, match=r"weights-of-mine lacks models/w\.pth"):
        load("test_resnet", "package")


def test_a_model_that_no_package_has_is_refused():
    with pytest.raises(MissingWeights, match="has weights of resnet18, only of tf_efficientnet_l"):
        load("resnet18", "package")


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    missing = weights.Package("no-such-package", "mine", "no_such_package", "w.pth")
    monkeypatch.setitem(weights.PACKAGES, "test_resnet", missing)
    with pytest.raises(MissingWeights, match=r"no-such-package is not .*pip .*'dmlbench\[mine\]'"):
        load("test_resnet", "package")
