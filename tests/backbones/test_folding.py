"""Folding spares work, and changes neither features nor gradients nor what is saved."""

import copy
import pickle

import pytest
import torch
from torch import nn

from dmlbench.backbones import folding
from dmlbench.backbones.folding import FoldedNorm, fold
from dmlbench.backbones.model import EmbeddingModel
from dmlbench.settings import Backbone, Recipe

MODELS = [  # and how many of their batch norms are folded, of how many
    ("test_resnet", 32, "linear", 15, 15),
    ("bn_inception", 32, "linear", 69, 69),  # its convolutions have a bias
    ("test_resnet", 96, "low_mid_high", 15, 15),
    ("test_efficientnet", 32, "linear", 13, 13),  # BatchNormAct2d
    ("regnetx_002", 32, "linear", 44, 44),  # and groups
    # Conv2dSame pads what it is given
    pytest.param("tf_efficientnet_b0", 32, "linear", 44, 49, marks=pytest.mark.slow),
    ("repvgg_a0", 32, "linear", 44, 61),  # batch norm of a block's input, too
    ("densenet121", 32, "linear", 59, 121),  # most take what several convolutions gave
    ("test_vit", 32, "linear", 0, 0),
]


def norms(module):
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def folded(module):
    return [m for m in module.modules() if isinstance(m, FoldedNorm)]


def draw(module):
    """Other statistics than those of a new model, which are all 0 and 1."""
    with torch.no_grad():
        for norm in norms(module):
            for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
                values.uniform_(0.5, 1.5)


@pytest.fixture
def build(monkeypatch):
    def build(kind="test_resnet", size=32, head="linear", folds=True, **recipe):
        monkeypatch.setattr(folding, "fold", fold if folds else lambda *_: None)
        torch.manual_seed(0)
        backbone = Backbone(type=kind, dim=12, image_size=size, head=head)
        made = EmbeddingModel(backbone, Recipe(**{"freeze_bn": True, **recipe}), 3)
        torch.manual_seed(1)
        draw(made.trunk)
        made.load_state_dict(made.state_dict())
        made.double()
        for norm in folded(made):
            norm.fold()  # not what was rounded to float32
        return made

    return build


@pytest.mark.parametrize(("kind", "size", "head", "count", "of"), MODELS)
def test_features_and_gradients_are_those_of_the_model_that_is_not_folded(
    build, kind, size, head, count, of
):
    made, plain = build(kind, size, head), build(kind, size, head, folds=False)
    assert (len(folded(made.trunk)), len(norms(made.trunk))) == (count, of)
    assert not folded(plain.trunk)
    images = torch.rand(2, 3, size, size, dtype=torch.float64)
    for mode in (True, False):
        expected, found = (model.train(mode)(images).detach() for model in (plain, made))
        assert torch.allclose(found, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))
        for model in (plain, made):
            model.zero_grad()
            torch.nn.functional.normalize(model(images))[:, 0].sum().backward()
        pairs = zip(plain.named_parameters(), made.named_parameters(), strict=True)
        largest = max(float(p.grad.abs().max()) for p in plain.parameters() if p.requires_grad)
        for (name, mine), (same, other) in pairs:
            assert (name, mine.requires_grad) == (same, other.requires_grad)
            if mine.requires_grad:
                assert torch.allclose(other.grad, mine.grad, rtol=1e-8, atol=1e-10 * largest), name
            else:
                assert mine.grad is other.grad is None


@pytest.mark.parametrize("kind", ["bn_inception", "test_efficientnet"])
def test_a_state_dict_is_that_of_the_model_that_is_not_folded(build, kind):
    made, plain = build(kind).state_dict(), build(kind, folds=False).state_dict()
    assert [*made] == [*plain]
    assert all(torch.equal(made[name], plain[name]) for name in plain)


def test_what_is_loaded_is_folded_anew(build):
    made, plain = build(), build(folds=False)
    draw(plain)
    made.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    assert torch.allclose(made.eval()(images), plain.eval()(images), rtol=1e-10)


def test_a_copy_stands_alone(build):
    made = build()
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    expected = made(images)
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(other(images), expected)
        draw(other)
        other.load_state_dict(other.state_dict())
        assert not torch.allclose(other(images), expected)
        assert torch.equal(made(images), expected)


def test_only_frozen_batch_norm_is_folded_and_no_random_number_is_taken(build):
    assert not folded(build(freeze_bn=False))
    made = []
    for folds in (True, False):
        build(folds=folds, freeze_bn=True)
        torch.manual_seed(5)
        backbone = Backbone(type="test_resnet", dim=12, image_size=32)
        made.append((EmbeddingModel(backbone, Recipe(freeze_bn=True), 3), torch.rand(1)))
    (mine, drawn), (plain, same) = made
    assert folded(mine)
    assert not folded(plain)
    assert torch.equal(drawn, same)
    for name, value in plain.state_dict().items():
        assert torch.equal(mine.state_dict()[name], value), name


class Block(nn.Module):
    """Two convolutions, a batch norm and dropout, put together by `how`."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.conv, self.other = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm, self.dropout = nn.BatchNorm2d(3), nn.Dropout(0.5)

    def forward(self, x):
        return self.how(self, x)


def folds(how):
    trunk = Block(how).train()
    trunk.norm.eval()
    fold(trunk, lambda model: model(torch.rand(2, 3, 4, 4, dtype=torch.float64)))
    return bool(folded(trunk))


def test_dropout_and_the_weights_of_others_do_not_matter():
    assert folds(lambda b, x: b.other(b.dropout(b.norm(b.conv(x)))))


def test_what_is_safe_is_folded_beside_what_is_not():
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
    "how",
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
def test_what_is_not_safe_stays_as_it_was(how):
    assert not folds(how[1])
