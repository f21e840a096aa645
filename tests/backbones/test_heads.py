"""Embeddings of three depths, from any model that gives intermediate features."""

import pytest
import torch
from torch import nn

from dmlbench.backbones.heads import LowMidHigh, depths
from dmlbench.backbones.model import EmbeddingModel
from dmlbench.study.backbone_settings import Backbone
from dmlbench.study.settings import Recipe


def build_model(kind="test_resnet", channels=3, size=96, dim=12, **recipe):
    backbone = Backbone(type=kind, dim=dim, image_size=size, head="low_mid_high")
    return EmbeddingModel(backbone, Recipe(**recipe), channels)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("test_resnet", 96),
        ("test_convnext", 96),
        ("test_efficientnet", 96),
        ("test_vit", 96),
        ("mobilenetv2_100", 96),
        ("resnet50", 96),
        ("hiera_tiny_224", 224),
        ("bn_inception", 160),
    ],
)
def test_any_model_with_intermediate_features_gives_the_requested_dimension(kind, size):
    model = build_model(kind, size=size)
    assert model(torch.rand(2, 3, size, size)).shape == (2, 12)
    assert model.head.high.in_features == model.trunk(torch.rand(1, 3, size, size)).shape[1]


@pytest.mark.parametrize(
    ("kind", "channels"),
    [
        ("bn_inception", [576, 1056]),  # after 3c and 4e
        ("resnet50", [512, 1024]),  # strides 8 and 16
        ("mobilenetv2_100", [32, 96]),
    ],
)
def test_low_and_middle_are_the_two_stages_before_the_last(kind, channels):
    model = build_model(kind, size=160)
    assert [model.head.low[1].in_channels, model.head.middle[1].in_channels] == channels


def test_the_depths_of_a_vit_are_a_third_and_two_thirds_of_its_blocks():
    model = build_model("test_vit").eval()
    assert depths(model.trunk) == [1, 3]
    seen = []
    for number in (1, 3):
        model.trunk.blocks[number].register_forward_hook(lambda *call: seen.append(call[2]))
    low, middle, _ = model.head.features(model.trunk, torch.rand(2, 3, 96, 96))
    prefix = model.trunk.num_prefix_tokens
    for level, tokens in zip((low, middle), seen, strict=True):
        assert torch.equal(level.flatten(2).mT, tokens[:, prefix:])


def test_the_embedding_joins_low_middle_and_high_and_is_not_normalised():
    model = build_model().eval()
    images = torch.rand(2, 3, 96, 96)
    pixels = (images - model.mean) / model.std
    _, levels = model.trunk.forward_intermediates(pixels)
    expected = [
        model.head.low(levels[2]),
        model.head.middle(levels[3]),
        model.head.high(model.trunk(pixels)),
    ]
    assert [block.shape for block in expected] == [(2, 4)] * 3
    torch.testing.assert_close(model(images), torch.cat(expected, 1))


@pytest.mark.parametrize(("side", "count"), [(5, 1), (7, 2), (14, 4), (28, 9)])
def test_a_branch_has_the_pooling_and_layers_of_the_authors_network(side, count):
    """It averages 5x5 windows at stride 3; at the border, the part of a window that exists."""
    branch = LowMidHigh(_Maps(side), torch.zeros(2, 3, side, side), 6).low
    level = torch.rand(2, 8, side, side)
    expected = torch.stack(
        [
            torch.stack([level[:, :, y : y + 5, x : x + 5].mean((2, 3)) for x in starts], -1)
            for starts in [range(0, 3 * count, 3)]
            for y in starts
        ],
        -2,
    )
    torch.testing.assert_close(branch[0](level), expected)
    kinds = [type(layer).__name__ for layer in branch[1:]]
    assert kinds == [
        "Conv2d",
        "BatchNorm2d",
        "ReLU",
        "Flatten",
        "Linear",
        "BatchNorm1d",
        "ReLU",
        "Linear",
    ]
    assert branch[1].weight.shape == (128, 8, 1, 1)
    assert branch[5].weight.shape == (1024, 128 * count**2)
    assert branch[8].weight.shape == (2, 1024)


class _Maps(nn.Module):
    """A trunk whose levels have the size of its images."""

    feature_info = ({"reduction": 8}, {"reduction": 16}, {"reduction": 32})

    def __init__(self, side):
        super().__init__()
        self.side = side

    def forward_intermediates(self, images, indices, stop_early):
        return images, [torch.zeros(2, 8, self.side, self.side) for _ in indices]

    def forward_head(self, features):
        return features.mean((2, 3))


def test_batch_norm_is_frozen_in_the_trunk_and_not_in_the_head():
    model = build_model(freeze_bn=True).train()
    norms = {
        name: m
        for name, m in model.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
    }
    model(torch.rand(4, 3, 96, 96)).sum().backward()
    learning = {name for name, norm in norms.items() if norm.training}
    in_head = {f"head.{branch}.{place}" for branch in ("low", "middle") for place in (2, 6)}
    assert learning == in_head
    assert {name for name, norm in norms.items() if norm.weight.grad is not None} == learning


def test_without_training_the_trunk_only_the_head_gets_a_gradient():
    model = build_model()
    model(torch.rand(2, 3, 96, 96), train_trunk=False).square().sum().backward()
    assert all(p.grad is not None for p in model.head.parameters())
    assert all(p.grad is None for p in model.trunk.parameters())
    model(torch.rand(2, 3, 96, 96)).square().sum().backward()
    assert all(p.grad is not None for p in model.trunk.parameters())


def test_a_state_dict_restores_a_model_for_gray_images():
    torch.manual_seed(0)
    model, other = build_model(channels=1).eval(), build_model(channels=1).eval()
    images = torch.rand(2, 1, 96, 96)
    assert not torch.equal(model(images), other(images))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(images), other(images))


def test_images_too_small_for_the_windows_are_refused_with_the_size_that_fits():
    with pytest.raises(ValueError, match=r"middle level of test_resnet has 4x4 .* of 64 .*: 80 or"):
        build_model(size=64)
    build_model(size=80)


@pytest.mark.parametrize("lacks", ["feature_info", "forward_intermediates", "depth"])
def test_a_model_without_features_of_three_depths_is_refused_with_the_fix(lacks):
    class Trunk(nn.Module):
        if lacks != "feature_info":
            feature_info = ({"reduction": 8}, {"reduction": 16}) + ({"reduction": 32},) * (
                lacks != "depth"
            )
        if lacks != "forward_intermediates":
            forward_intermediates = None

    with pytest.raises(
        ValueError, match=r"backbones\.<name>\.head: .*Trunk does not .*head: linear"
    ):
        LowMidHigh(Trunk(), torch.zeros(1, 3, 64, 64), 12)
