"""No step uses an operator that has no deterministic kernel on a GPU, but for some poolings.

The operators are those that `torch.use_deterministic_algorithms` of torch 2.15 documents as refused
on CUDA. torch refuses in the CUDA code alone, so here the operators of a CPU are noted.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dmlbench.backbones.model import EmbeddingModel
from dmlbench.conformance.subject import batch, find_loss, training_set
from dmlbench.losses import list_losses
from dmlbench.study.backbone_settings import Backbone
from dmlbench.study.settings import Augmentation, Jitter, Recipe
from dmlbench.training import batches
from dmlbench.training.train import create_optimizer

REFUSED = {
    # pooling and padding
    *("avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward"),
    *("adaptive_max_pool2d_backward", "adaptive_max_pool3d_backward"),
    *("fractional_max_pool2d_backward", "fractional_max_pool3d_backward"),
    *("max_unpool2d", "max_unpool3d"),
    *(f"reflection_pad{n}d_backward" for n in (1, 2, 3)),
    # interpolation
    *("upsample_linear1d_backward", "upsample_trilinear3d_backward"),
    *(f"{name}_backward" for name in ("upsample_bilinear2d", "upsample_bicubic2d")),
    *("_upsample_bilinear2d_aa_backward", "_upsample_bicubic2d_aa_backward"),
    *("grid_sampler_2d_backward", "grid_sampler_3d_backward"),
    # losses
    *("nll_loss2d_forward", "nll_loss2d_backward", "_ctc_loss_backward"),
    "_embedding_bag_dense_backward",
    # of a tensor
    *("put", "put_", "histc", "median", "nanmedian", "kthvalue", "scatter_reduce", "index_reduce"),
    *("scatter_reduce_", "index_reduce_", "bincount with weights"),
}


class Operators(TorchDispatchMode):
    """Notes the names of all operators, those of the backward pass too."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        weights = args[1] if len(args) > 1 else kwargs.get("weights")
        if name == "bincount" and weights is not None:
            name = "bincount with weights"
        self.names.add(name)
        return func(*args, **kwargs)

    @property
    def refused(self):
        assert self.names
        return self.names & REFUSED


@pytest.mark.filterwarnings("ignore:.* is used without its `batches`")
@pytest.mark.parametrize("name", list_losses())
def test_no_loss_uses_one(name):
    embeddings, labels = batch()
    for _, loss in find_loss(name, {}).stages():
        with Operators() as operators:
            loss.refresh(training_set)
            loss(embeddings.requires_grad_(), labels).backward()
        assert any(name.endswith("backward") or "mm" in name for name in operators.names)
        assert operators.refused == set()


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [
        *(("test_resnet", pooling) for pooling in ("avg", "max", "avgmax", "catavgmax")),
        *(("test_vit", pooling) for pooling in ("avg", "max", "avgmax", "token", "map")),
    ],
)
def test_the_maximum_over_a_map_is_the_only_pooling_that_does(kind, pooling):
    backbone = Backbone(type=kind, dim=12, image_size=96)
    model = EmbeddingModel(backbone, Recipe(freeze_bn=True, pooling=pooling), 3)
    with Operators() as operators:
        model(torch.rand(2, 3, 96, 96)).sum().backward()
    pools = "max" in pooling and kind == "test_resnet"
    assert operators.refused == ({"adaptive_max_pool2d_backward"} if pools else set())


@pytest.mark.parametrize("kind", ["test_convnext", "test_efficientnet", "bn_inception"])
@pytest.mark.parametrize("frozen", [True, False])
def test_other_trunks_use_none(kind, frozen):
    model = EmbeddingModel(Backbone(type=kind, dim=12, image_size=64), Recipe(freeze_bn=frozen), 3)
    with Operators() as operators:
        model(torch.rand(2, 3, 64, 64)).sum().backward()
    assert operators.refused == set()


def test_the_branches_of_low_mid_high_use_none():
    backbone = Backbone(type="test_resnet", dim=12, image_size=96, head="low_mid_high")
    model = EmbeddingModel(backbone, Recipe(freeze_bn=True), 3)
    with Operators() as operators:
        model(torch.rand(2, 3, 96, 96)).sum().backward()
    assert operators.refused == set()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_no_optimizer_and_no_clipping_uses_one(optimizer):
    model = nn.Module()
    model.trunk, model.head = nn.Linear(3, 3), nn.Linear(3, 3)
    optimizer = create_optimizer(Recipe(optimizer=optimizer), model, [])
    with Operators() as operators:
        model.head(model.trunk(torch.rand(2, 3))).sum().backward()
        nn.utils.clip_grad_value_([*model.parameters()], 0.1)
        nn.utils.clip_grad_norm_([*model.parameters()], 0.1)
        optimizer.step()
    assert operators.refused == set()


def test_no_augmentation_uses_one():
    random = np.random.default_rng(0)
    jitter = Jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    augmentation = Augmentation(flip=True, jitter=jitter)
    _, drawn = batches.draw(np.full((4, 2), 20), augmentation, random)
    with Operators() as operators:
        batches.floats(torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8), **drawn)
    assert operators.refused == set()


def test_a_loss_with_such_operators_would_be_noticed():
    values = torch.rand(2, 3).requires_grad_()
    with Operators() as operators:
        values.median(dim=1).values.sum().backward()
        torch.bincount(torch.tensor([0, 1]))
    assert operators.refused == {"median"}
    with Operators() as operators:
        torch.bincount(torch.tensor([0, 1]), torch.rand(2))
    assert operators.refused == {"bincount with weights"}
