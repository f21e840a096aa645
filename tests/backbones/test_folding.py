"""Folding saves work, and changes neither features nor gradients nor the state dict."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from dmlbench.backbones import folding
from dmlbench.backbones.folding import FoldedNorm, fold, randomise_batch_norms
from dmlbench.backbones.model import EmbeddingModel
from dmlbench.study.backbone_settings import Backbone
from dmlbench.study.settings import Recipe

WEIGHTS = Path(__file__).parents[3] / "shared/data/weights/mobilenetv2_100.safetensors"
# Model, image size, head; how many batch norms are folded, and how many there are
MODELS = [
    ("test_resnet", 32, "linear", 15, 15),
    pytest.param("resnet50", 32, "linear", 53, 53, marks=pytest.mark.slow),
    ("bn_inception", 32, "linear", 69, 69),  # its convolutions have a bias
    ("test_resnet", 96, "low_mid_high", 15, 15),
    ("test_efficientnet", 32, "linear", 13, 13),  # BatchNormAct2d
    ("regnetx_002", 32, "linear", 44, 44),  # BatchNormAct2d and grouped convolutions
    # Conv2dSame pads its input
    pytest.param("tf_efficientnet_b0", 32, "linear", 44, 49, marks=pytest.mark.slow),
    ("repvgg_a0", 32, "linear", 44, 61),  # some batch norms take the input of a block
    ("densenet121", 32, "linear", 59, 121),  # most take the outputs of several convolutions
    ("test_vit", 32, "linear", 0, 0),
]


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def folded(module):
    return [m for m in module.modules() if isinstance(m, FoldedNorm)]


def draw(module, seed=1):
    randomise_batch_norms(module, torch.Generator().manual_seed(seed))


def convolutions(module):
    return {name: m for name, m in module.named_modules() if isinstance(m, nn.Conv2d)}


@pytest.fixture
def build(monkeypatch):
    """Build a model in float64 with random statistics, folded or not."""

    def build(kind="test_resnet", size=32, head="linear", folds=True, **recipe):
        monkeypatch.setattr(folding, "fold", fold if folds else lambda *_: None)
        torch.manual_seed(0)
        backbone = Backbone(type=kind, dim=12, image_size=size, head=head)
        model = EmbeddingModel(backbone, Recipe(**{"freeze_bn": True, **recipe}), 3).double()
        draw(model.trunk)
        return model

    return build


@pytest.mark.parametrize(("kind", "size", "head", "count", "of"), MODELS)
def test_folding_changes_neither_features_nor_gradients(build, kind, size, head, count, of):
    model, plain = build(kind, size, head), build(kind, size, head, folds=False)
    assert (len(folded(model.trunk)), len(norms(model.trunk))) == (count, of)
    assert not folded(plain.trunk)
    images = torch.rand(2, 3, size, size, dtype=torch.float64)
    for mode in (True, False):
        expected, actual = (module.train(mode)(images).detach() for module in (plain, model))
        assert torch.allclose(actual, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))
        for module in (plain, model):
            module.zero_grad()
            torch.nn.functional.normalize(module(images))[:, 0].sum().backward()
        pairs = zip(plain.named_parameters(), model.named_parameters(), strict=True)
        largest = max(float(p.grad.abs().max()) for p in plain.parameters() if p.requires_grad)
        for name, convolution in convolutions(model.trunk).items():
            assert convolution.weight.grad.any(), name
        for (name, expected), (same_name, actual) in pairs:
            assert (name, expected.requires_grad) == (same_name, actual.requires_grad)
            if expected.requires_grad:
                tolerance = 1e-10 * largest
                assert torch.allclose(actual.grad, expected.grad, rtol=1e-8, atol=tolerance), name
            else:
                assert expected.grad is actual.grad is None


def test_every_convolution_learns_beside_randomised_batch_norms_and_few_beside_new_ones():
    """timm starts the last batch norm of each residual block with the weight 0."""
    backbone = Backbone(type="test_resnet", dim=12, image_size=32)
    model = EmbeddingModel(backbone, Recipe(freeze_bn=True), 3)

    def without_gradient():
        model.zero_grad()
        model(torch.rand(2, 3, 32, 32)).square().sum().backward()
        modules = convolutions(model.trunk).items()
        return [name for name, module in modules if not module.weight.grad.any()]

    assert len(without_gradient()) == 9
    draw(model)
    assert without_gradient() == []


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="needs the shared weights")
def test_folding_changes_float32_features_of_trained_weights_by_rounding_alone(monkeypatch):
    backbone = Backbone(type="mobilenetv2_100", dim=12, image_size=64, pretrained=str(WEIGHTS))
    images, results = torch.rand(4, 3, 64, 64), []
    for replacement in (fold, lambda *_: None):
        monkeypatch.setattr(folding, "fold", replacement)
        torch.manual_seed(0)
        model = EmbeddingModel(backbone, Recipe(freeze_bn=True), 3)
        embeddings = model(images)
        embeddings.square().sum().backward()
        gradients = {name: m.weight.grad for name, m in convolutions(model.trunk).items()}
        results.append((len(folded(model)), embeddings.detach(), gradients))
    (count, actual, actual_gradients), (none, expected, expected_gradients) = results
    assert (count, none) == (52, 0)
    assert (actual - expected).norm() < 1e-5 * expected.norm()
    for name, gradient in expected_gradients.items():
        assert gradient.any(), name
        assert (actual_gradients[name] - gradient).norm() < 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("kind", ["bn_inception", "test_efficientnet"])
def test_folding_does_not_change_the_state_dict(build, kind):
    model, plain = build(kind).state_dict(), build(kind, folds=False).state_dict()
    assert [*model] == [*plain]
    assert all(torch.equal(model[name], plain[name]) for name in plain)


def test_loaded_weights_are_folded_again(build):
    model, plain = build(), build(folds=False)
    draw(plain, 2)
    model.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    assert torch.allclose(model.eval()(images), plain.eval()(images), rtol=1e-10)


def test_a_copy_is_independent(build):
    model = build()
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    expected = model(images)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(images), expected)
        draw(other, 2)
        assert not torch.allclose(other(images), expected)
        assert torch.equal(model(images), expected)


def test_only_frozen_batch_norm_is_folded_and_no_random_number_is_used_up(build):
    assert not folded(build(freeze_bn=False))
    results = []
    for folds in (True, False):
        build(folds=folds, freeze_bn=True)
        torch.manual_seed(5)
        backbone = Backbone(type="test_resnet", dim=12, image_size=32)
        results.append((EmbeddingModel(backbone, Recipe(freeze_bn=True), 3), torch.rand(1)))
    (model, number), (plain, plain_number) = results
    assert folded(model)
    assert not folded(plain)
    assert torch.equal(number, plain_number)
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


class Block(nn.Module):
    """Two convolutions, a batch norm and dropout, which `compute` puts together."""

    def __init__(self, compute):
        super().__init__()
        self.compute = compute
        self.conv, self.other = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm, self.dropout = nn.BatchNorm2d(3), nn.Dropout(0.5)

    def forward(self, x):
        return self.compute(self, x)


def folds(compute):
    """Whether the batch norm of a block is folded."""
    trunk = Block(compute).train()
    trunk.norm.eval()
    fold(trunk, lambda model: model(torch.rand(2, 3, 4, 4, dtype=torch.float64)))
    return bool(folded(trunk))


def test_dropout_and_other_layers_after_the_batch_norm_do_not_matter():
    assert folds(lambda b, x: b.other(b.dropout(b.norm(b.conv(x)))))


def test_a_safe_pair_is_folded_in_a_model_with_an_unsafe_one():
    first, second = Block(None), Block(None)

    def features(trunk):
        x = trunk[0].conv(torch.rand(2, 3, 4, 4, dtype=torch.float64))
        x = x + trunk[0].norm(x)
        return trunk[1].norm(trunk[1].conv(x))

    trunk = nn.Sequential(first, second).train()
    for block in (first, second):
        block.norm.eval()
    fold(trunk, features)
    assert not folded(first)
    assert folded(second)


@pytest.mark.parametrize(
    "case",
    {
        "the output is used again": lambda b, x: (y := b.conv(x)) + b.norm(y),
        "it is changed in place": lambda b, x: (y := b.conv(x), y.relu_(), b.norm(y))[2],
        "it is a feature": lambda b, x: [y := b.conv(x), b.norm(y)],
        "it is read outside of torch": lambda b, x: b.norm(y := b.conv(x)) * y.numpy().mean(),
        "something is between": lambda b, x: b.norm(b.conv(x).relu()),
        "dropout is between": lambda b, x: b.norm(b.dropout(b.conv(x))),
        "the batch norm comes first": lambda b, x: b.conv(b.norm(x)),
        "the convolution serves twice": lambda b, x: b.norm(b.conv(x)) + b.conv(x).relu(),
        "the batch norm serves twice": lambda b, x: b.norm(b.conv(x)) + b.norm(b.other(x)),
    }.items(),
    ids=lambda item: item[0],
)
def test_an_unsafe_pair_is_not_folded(case):
    _, compute = case
    assert not folds(compute)
