"""A model that mixes the images of a batch, or draws at random, is not trained in chunks."""

import pytest
import timm
import torch
from timm.layers import DropPath, PatchDropout
from torch import nn

from dmlbench.backbones.independence import check_independence, coupling

IMAGE = torch.empty(3, 8, 8)


def network(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), *layers, nn.Flatten(), nn.LazyLinear(5))


class Centred(nn.Module):
    """Subtracts the mean of the batch: no list of modules knows it."""

    def forward(self, x):
        return x - x.mean(dim=0)


class Noise(nn.Module):
    def forward(self, x):
        return x + 0.1 * torch.randn_like(x) if self.training else x


class Counting(nn.Module):
    """Counts its passes, as spectral norm goes on with its power iteration."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        return x


MIXING = {
    "batch norm": (nn.BatchNorm2d(4), r"1 \(BatchNorm2d\) computes with the statistics of its b"),
    "no statistics": (nn.BatchNorm2d(4, track_running_stats=False).eval(), "with the statistics"),
    "dropout": (nn.Dropout(0.1), r"1 \(Dropout\) draws at random in each pass\. Leave chunk out"),
    "alpha": (nn.FeatureAlphaDropout(0.1), "draws at random in each pass"),
    "depth": (DropPath(0.1), r"1 \(DropPath\) draws at random"),
    "rrelu": (nn.RReLU(), "draws at random"),
    "centred": (Centred(), "the embedding of an image changes with the other images"),
    "noise": (Noise(), "the embedding of an image changes"),
    "counting": (Counting(), "each pass changes what the next one computes"),
}


@pytest.mark.parametrize("case", MIXING)
def test_a_model_that_mixes_or_draws_is_refused_with_the_module_and_the_key(case):
    layer, reason = MIXING[case]
    with pytest.raises(ValueError, match=f"recipe.chunk: 7 needs a model .* and .*{reason}"):
        check_independence(network(layer), 7, IMAGE)


@pytest.mark.parametrize(
    "layer",
    [
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4),
        nn.Dropout(0.0),
        DropPath(0.0),
        nn.Identity(),
    ],
)
def test_a_model_that_embeds_each_image_by_itself_is_accepted_and_draws_nothing(layer):
    model = network(layer)
    before = torch.get_rng_state()
    model(torch.zeros(2, 3, 8, 8))  # it makes its last layer
    before = torch.get_rng_state()
    check_independence(model, 7, IMAGE)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


def test_dropped_patches_are_seen():
    assert (
        coupling(nn.Sequential(PatchDropout(0.5)))
        == "0 (PatchDropout) draws at random in each pass"
    )


@pytest.mark.parametrize(
    ("name", "options", "is_free"),
    [
        ("test_resnet", {}, True),
        ("test_vit", {}, True),
        ("test_vit", {"drop_path_rate": 0.1}, False),
        ("test_vit", {"attn_drop_rate": 0.1}, False),
        ("test_convnext", {}, True),
        ("test_efficientnet", {"drop_rate": 0.2, "num_classes": 5}, True),  # of its classifier
    ],
)
def test_models_of_timm_with_frozen_batch_norm(name, options, is_free):
    model = timm.create_model(name, **{"num_classes": 0} | options)
    assert (coupling(model.train(), freeze_bn=True) == "") is is_free
