"""Any timm model becomes a trunk with an embedding head, and frozen batch norm stays frozen."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from dmlbench.backbones.model import EmbeddingModel
from dmlbench.backbones.timm import create_trunk
from dmlbench.study.backbone_settings import Backbone
from dmlbench.study.settings import Recipe
from dmlbench.utils.errors import MissingWeights

WEIGHTS = Path(__file__).parents[3] / "shared/data/weights/mobilenetv2_100.safetensors"


def build_model(kind="test_resnet", channels=3, size=32, pretrained=False, **recipe):
    backbone = Backbone(type=kind, dim=16, image_size=size, pretrained=pretrained)
    return EmbeddingModel(backbone, Recipe(**recipe), channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_any_timm_model_gives_embeddings_of_the_requested_dimension(kind, channels):
    model = build_model(kind, channels, size=64)
    assert model(torch.rand(2, channels, 64, 64)).shape == (2, 16)


def test_the_recipe_sets_the_pooling():
    images = torch.rand(2, 3, 64, 64)
    torch.manual_seed(0)
    average = build_model(pooling="avg").eval()
    torch.manual_seed(0)
    largest = build_model(pooling="max").eval()
    assert torch.equal(average.head.weight, largest.head.weight)
    assert not torch.allclose(average(images), largest(images))


def test_frozen_batch_norm_keeps_statistics_and_affine_parameters():
    model = build_model(freeze_bn=True).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    model(torch.rand(4, 3, 32, 32)).sum().backward()
    assert norms
    for norm, mean in zip(norms, before, strict=True):
        assert not norm.training
        assert norm.weight.grad is None
        assert torch.equal(norm.running_mean, mean)
    assert next(model.trunk.parameters()).grad is not None


@pytest.mark.parametrize("momentum", [None, 0.001, 0.9, 1.0])
@pytest.mark.parametrize("head", ["linear", "low_mid_high"])
def test_the_recipe_sets_how_much_a_batch_moves_the_running_statistics(momentum, head):
    backbone = Backbone(type="test_resnet", dim=12, image_size=96, head=head)
    torch.manual_seed(0)
    model = EmbeddingModel(backbone, Recipe(freeze_bn=False, bn_momentum=momentum), 3)
    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert len(norms) > 4
    means = {}
    for norm in norms:
        norm.register_forward_pre_hook(
            lambda norm, inputs: means.update(
                {norm: inputs[0].mean(dim=[d for d in range(inputs[0].ndim) if d != 1])}
            )
        )
    before = {norm: norm.running_mean.clone() for norm in norms}
    with torch.no_grad():
        model.train()(torch.rand(4, 3, 96, 96))
    share = 0.1 if momentum is None else momentum
    for norm, batch in means.items():
        expected = (1 - share) * before[norm] + share * batch
        torch.testing.assert_close(norm.running_mean, expected, rtol=1e-4, atol=1e-6)
    assert means.keys() == before.keys()


def test_batch_norm_that_is_not_frozen_learns():
    model = build_model(freeze_bn=False).train()
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    model(torch.rand(4, 3, 32, 32)).sum().backward()
    assert norm.weight.grad is not None
    assert not torch.equal(norm.running_mean, before)


@pytest.mark.parametrize(
    ("kind", "size", "head"),
    [
        ("test_resnet", 32, "linear"),
        ("test_vit", 96, "linear"),
        ("test_resnet", 96, "low_mid_high"),
    ],
)
def test_under_autocast_the_head_computes_in_float32(kind, size, head):
    backbone = Backbone(type=kind, dim=12, image_size=size, head=head)
    model = EmbeddingModel(backbone, Recipe(freeze_bn=True), 3)
    model.head.eval()  # a batch norm in training would change its own statistics
    images = torch.rand(4, 3, size, size)
    features = []
    model.head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    computed = []
    for level in ("trunk", "head"):
        layer = next(
            m for m in getattr(model, level).modules() if isinstance(m, nn.Linear | nn.Conv2d)
        )
        layer.register_forward_hook(lambda *call: computed.append(call[2].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings = model(images)
    assert computed == [torch.bfloat16, torch.float32]
    assert embeddings.dtype == torch.float32
    assert torch.equal(embeddings, model.head(features[0]))
    embeddings.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    plain = model(images).detach()
    assert 0 < (embeddings - plain).norm() < 0.02 * plain.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_autocast_the_head_takes_the_features_as_they_are(dtype):
    model = build_model(freeze_bn=True).to(dtype)
    images = torch.rand(4, 3, 32, 32, dtype=dtype)
    embeddings = model(images)
    assert embeddings.dtype == dtype
    pixels = ((images - model.mean) / model.std).contiguous(memory_format=torch.channels_last)
    assert torch.equal(embeddings, model.head(model.trunk(pixels)))


def test_without_training_the_trunk_only_the_head_gets_a_gradient():
    model = build_model()
    model(torch.rand(2, 3, 32, 32), train_trunk=False).sum().backward()
    assert model.head.weight.grad is not None
    assert all(p.grad is None for p in model.trunk.parameters())


def test_pixels_are_normalised_as_the_backbone_expects():
    model = build_model(channels=3).eval()
    pixels = torch.rand(2, 3, 32, 32)
    config = timm.create_model("test_resnet", num_classes=0).pretrained_cfg
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    assert torch.allclose(model(pixels), model.head(model.trunk((pixels - mean) / std)), atol=1e-5)


def test_gray_images_take_the_mean_of_the_colours_statistics():
    colours = timm.create_model("test_vit", num_classes=0).pretrained_cfg["std"]
    model = build_model("test_vit", channels=1, size=64)
    assert model.std.item() == pytest.approx(sum(colours) / 3)


def test_all_weights_of_a_users_file_are_loaded(tmp_path):
    torch.manual_seed(1)
    source = timm.create_model("test_resnet", num_classes=0)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    model = build_model(pretrained=str(tmp_path / "w.safetensors"))
    for name, value in source.state_dict().items():
        assert torch.equal(model.trunk.state_dict()[name], value), name


def test_the_weights_of_another_model_are_refused_with_the_fix(tmp_path):
    other = timm.create_model("test_convnext", num_classes=0)
    save_file(other.state_dict(), tmp_path / "w.safetensors")
    message = r"test_resnet from .*w\.safetensors: 90 are missing \(conv1\.0\.weight, .* 87 more"
    with pytest.raises(MissingWeights, match=message):
        build_model(pretrained=str(tmp_path / "w.safetensors"))


def test_pretrained_true_loads_the_staged_weights_for_gray_images_too(monkeypatch, tmp_path):
    monkeypatch.setenv("DMLBENCH_DATA", str(tmp_path))
    torch.manual_seed(1)
    source = timm.create_model("test_resnet", num_classes=0).state_dict()
    (tmp_path / "weights").mkdir()
    save_file(source, tmp_path / "weights/test_resnet.r160_in1k.safetensors")
    for kind in ("test_resnet", "test_resnet.r160_in1k"):
        learnt = build_model(kind, pretrained=True).trunk.state_dict()
        assert all(torch.equal(learnt[name], value) for name, value in source.items())
    gray = build_model(channels=1, pretrained=True).trunk.state_dict()
    differ = {name for name in source if gray[name].shape != source[name].shape}
    assert differ == {"conv1.0.weight"}
    assert torch.allclose(gray["conv1.0.weight"], source["conv1.0.weight"].sum(1, keepdim=True))


def test_pretrained_true_without_a_staged_file_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("DMLBENCH_DATA", str(tmp_path))
    with pytest.raises(MissingWeights) as caught:
        create_trunk("resnet18", channels=3, image_size=64, pooling=None, pretrained=True)
    assert "`dmlbench weights resnet18`" in str(caught.value)
    assert f"there is no {tmp_path}/weights/resnet18.a1_in1k.safetensors" in str(caught.value)


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="needs the shared weights")
def test_real_pretrained_weights_give_useful_features():
    model = build_model("mobilenetv2_100", size=64, pretrained=str(WEIGHTS)).eval()
    features = model.trunk(torch.rand(2, 3, 64, 64))
    assert features.shape == (2, 1280)
    assert features.std() > 0.05
