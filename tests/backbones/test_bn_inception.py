"""BN-Inception gives what the port of the Caffe model gives, whose weights it loads."""

import importlib.util
from hashlib import sha256
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import _registry as registry
from torch import nn
from torch.nn import functional

from dmlbench.backbones.bn_inception import BNInception
from dmlbench.backbones.catalogue import backbone_module, timm_models, timm_weights
from dmlbench.backbones.model import EmbeddingModel
from dmlbench.backbones.weights import fetch_weights, weights_file
from dmlbench.study.backbone_settings import Backbone
from dmlbench.study.settings import Recipe
from dmlbench.utils.errors import MissingWeights

NAME = "bn_inception.caffe_in1k"


def random_weights(model, seed=0):
    """Set weights and running statistics for which no layer's output vanishes."""
    torch.manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.8, 1.2)
            nn.init.normal_(layer.bias, 0, 0.3)
    return model.eval()


@pytest.fixture(scope="module")
def port():
    """R. Cadene's port, loaded by its file: its package imports modules that may be missing."""
    package = importlib.util.find_spec("pretrainedmodels")
    file = Path(package.origin).parent / "models/bninception.py"
    spec = importlib.util.spec_from_file_location("bninception_port", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return random_weights(module.bninception(1000, None)).double()


@pytest.fixture(scope="module")
def ours(port):
    """Our model with the weights of the port."""
    model = timm.create_model("bn_inception").double().eval()
    model.load_state_dict(port.state_dict())
    return model


@pytest.fixture(scope="module")
def state():
    """Random weights with a classifier, as float32."""
    return random_weights(timm.create_model("bn_inception"), seed=1).state_dict()


def build_model(pretrained, channels=3, size=32, **recipe):
    backbone = Backbone(type="bn_inception", dim=8, image_size=size, pretrained=pretrained)
    return EmbeddingModel(backbone, Recipe(**recipe), channels).eval()


def has_state(trunk, state):
    """Whether the trunk has the values of `state`, without its classifier."""
    actual = trunk.state_dict()
    expected = {name: value for name, value in state.items() if "last_linear" not in name}
    return actual.keys() == expected.keys() and all(
        torch.equal(actual[name], value) for name, value in expected.items()
    )


def test_parameters_and_statistics_have_the_names_and_shapes_of_the_port(port, ours):
    expected = {name: value.shape for name, value in port.state_dict().items()}
    actual = timm.create_model("bn_inception").state_dict()
    assert {name: value.shape for name, value in actual.items()} == expected
    assert len(expected) == 485
    assert sum(p.numel() for p in ours.parameters()) == 11_295_240


@pytest.mark.parametrize("size", [224, 227])
def test_logits_equal_those_of_the_port(port, ours, size):
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        expected, actual = port(images), ours(images)
    assert (expected[0] - expected[1]).norm() > 0.01 * expected.norm()
    assert (actual - expected).norm() < 1e-10 * expected.norm()


def test_intermediate_features_are_those_after_blocks_3c_4e_and_5b(port, ours):
    images = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    seen = {}
    hooks = [
        getattr(port, f"inception_{block}_1x1").register_forward_pre_hook(
            lambda _, inputs, block=block: seen.update({block: inputs[0]})
        )
        for block in ("4a", "5a")
    ]
    with torch.no_grad():
        expected = port.features(images)
        last, levels = ours.forward_intermediates(images, indices=3)
        some = ours.forward_intermediates(images, [-3], intermediates_only=True)
        early, _ = ours.forward_intermediates(images, [3], stop_early=True)
    for hook in hooks:
        hook.remove()
    for level, reference in zip(levels, [seen["4a"], seen["5a"], expected], strict=True):
        torch.testing.assert_close(level, reference, rtol=1e-10, atol=1e-10)
    assert [level.shape[1:] for level in levels] == [(576, 14, 14), (1056, 7, 7), (1024, 7, 7)]
    assert last is levels[2]
    assert torch.equal(some[0], levels[0])
    assert torch.equal(early, levels[1])
    for level, info in zip(levels, ours.feature_info[2:], strict=True):
        assert level.shape[1] == info["num_chs"]
        assert 224 / level.shape[2] == info["reduction"]


def test_timm_can_build_it_for_features_only():
    model = timm.create_model("bn_inception", features_only=True, out_indices=(2, 4))
    assert [level.shape[1] for level in model(torch.rand(2, 3, 32, 32))] == [576, 1024]
    assert model.feature_info.channels() == [576, 1024]


@pytest.mark.parametrize(
    ("pooling", "pooled"),
    [
        ("avg", lambda x: x.mean((2, 3))),
        ("max", lambda x: x.amax((2, 3))),
        ("avgmax", lambda x: (x.mean((2, 3)) + x.amax((2, 3))) / 2),
    ],
)
def test_the_recipe_sets_the_pooling(pooling, pooled):
    trunk = build_model(False, size=64, pooling=pooling).trunk
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(trunk(images), pooled(trunk.forward_features(images)))
    assert trunk.num_features == trunk(images).shape[1] == 1024


def test_the_classifier_can_be_replaced():
    model = timm.create_model("bn_inception", num_classes=7, drop_rate=0.5).eval()
    images = torch.rand(1, 3, 32, 32)
    assert model(images).shape == (1, 7)
    assert model.get_classifier() is model.last_linear
    model.reset_classifier(0, "max")
    assert torch.equal(model(images), model.forward_features(images).amax((2, 3)))
    model.reset_classifier(5)
    assert model(images).shape == (1, 5)
    assert model.global_pool.pool_type == "max"


def test_sizes_at_which_the_blocks_do_not_fit_are_refused():
    model = timm.create_model("bn_inception", num_classes=0).eval()
    for size in (31, 32, 38, 63):
        assert model(torch.rand(1, 3, size, size)).shape == (1, 1024)
    for size in (16, 30, 39, 62, 112):
        with pytest.raises(ValueError, match=rf"not of {size}: change .*image_size"):
            model(torch.rand(1, 3, size, size))


def test_pixels_are_blue_green_red_from_0_to_255_minus_the_means_of_the_port(state, tmp_path):
    save_file(state, tmp_path / "w.safetensors")
    model = build_model(str(tmp_path / "w.safetensors"))
    images = torch.rand(2, 3, 32, 32)
    red, green, blue = (255 * images).unbind(1)
    expected = model.trunk(torch.stack([blue - 104, green - 117, red - 128], 1))
    torch.testing.assert_close(model(images), model.head(expected), rtol=1e-3, atol=1e-4)


def test_a_gray_image_equals_an_image_of_three_equal_colours_minus_the_mean(state, tmp_path):
    save_file(state, tmp_path / "w.safetensors")
    gray = build_model(str(tmp_path / "w.safetensors"), channels=1)
    assert gray.mean.item() == pytest.approx((104 + 117 + 128) / 3 / 255)
    colours = timm.create_model("bn_inception", num_classes=0)
    colours.load_state_dict({k: v for k, v in state.items() if "last_linear" not in k})
    image = torch.rand(2, 1, 32, 32)
    expected = colours.eval()(255 * (image - gray.mean).expand(-1, 3, -1, -1))
    torch.testing.assert_close(
        gray.trunk(255 * (image - gray.mean)), expected, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("classifier", [True, False])
@pytest.mark.parametrize("form", ["safetensors", "pth", "of an old torch"])
def test_a_users_file_is_loaded_with_and_without_a_classifier(state, tmp_path, form, classifier):
    kept = {k: v for k, v in state.items() if classifier or "last_linear" not in k}
    file = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(kept, file)
    elif form == "pth":
        torch.save(kept, file)
    else:  # as the public file: no zip, and without counts of batches
        old = {name: value for name, value in kept.items() if "num_batches" not in name}
        torch.save(old, file, _use_new_zipfile_serialization=False)
    assert has_state(build_model(str(file)).trunk, state)


def test_a_file_that_lacks_a_layer_is_refused_with_the_fix(state, tmp_path):
    save_file({k: v for k, v in state.items() if "5b_1x1" not in k}, tmp_path / "w.safetensors")
    with pytest.raises(MissingWeights, match=r"inception from .*w\.safetensors: 7 are missing"):
        build_model(str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\3\4 torn"])
def test_a_damaged_file_is_refused_with_the_fix(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(MissingWeights, match=r"w\.pth cannot be read: .*\. Get it again"):
        build_model(str(tmp_path / "w.pth"))


@pytest.fixture
def public(state, tmp_path, monkeypatch):
    """Publish weights at a file's URL. Its name holds their checksum, or the one that is given."""
    monkeypatch.setenv("DMLBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "w.pth").read_bytes()

    def publish(checksum=None):
        file = tmp_path / f"bn_inception-{checksum or sha256(content).hexdigest()[:8]}.pth"
        file.write_bytes(content)
        monkeypatch.setattr(registry._model_pretrained_cfgs[NAME], "url", file.as_uri())
        return file

    return publish


@pytest.mark.parametrize("kind", ["bn_inception", NAME])
def test_pretrained_true_loads_the_weights_that_were_staged_from_their_url(public, state, kind):
    public()
    path = fetch_weights(kind)
    assert path == weights_file(NAME)
    assert path.name == f"{NAME}.safetensors"
    assert not [name for name in load_file(path) if "last_linear" in name]
    assert has_state(build_model(True).trunk, state)


def test_a_download_with_another_checksum_is_refused(public):
    file = public(checksum="52deb473")
    with pytest.raises(
        MissingWeights, match=r"cannot fetch bn_inception\.caffe_in1k.*hash"
    ) as caught:
        fetch_weights("bn_inception")
    assert file.as_uri() in str(caught.value)
    assert not weights_file(NAME).exists()


def test_without_internet_the_error_names_the_url_and_what_to_do(public):
    file = public()
    file.unlink()
    with pytest.raises(MissingWeights) as caught:
        fetch_weights("bn_inception")
    assert f"cannot fetch {NAME} from {file.as_uri()}" in str(caught.value)
    assert "backbones.<name>.pretrained: <path>" in str(caught.value)


def test_timm_knows_it_by_name():
    assert backbone_module("bn_inception") == "dmlbench.backbones.bn_inception"
    assert backbone_module(NAME) == "dmlbench.backbones.bn_inception"
    assert {"bn_inception", NAME} <= timm_models()
    assert timm_weights()["bn_inception"] == timm_weights()[NAME] == NAME
    assert isinstance(timm.create_model(NAME), BNInception)


def test_a_frozen_batch_norm_does_not_learn():
    model = build_model(False, freeze_bn=True).train()
    functional.normalize(model(torch.rand(2, 3, 32, 32))).sum().backward()
    assert model.trunk.conv1_7x7_s2_bn.weight.grad is None
    assert model.trunk.conv1_7x7_s2.weight.grad is not None
    assert not model.trunk.inception_5b_1x1_bn.training
