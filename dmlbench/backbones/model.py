"""The model that is trained: the trunk of a backbone and an embedding head, or the head alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # of timm's BatchNormAct2d too
from torch.utils._pytree import tree_map

from dmlbench.backbones.heads import HEADS
from dmlbench.backbones.timm import create_trunk

if TYPE_CHECKING:
    from dmlbench.study.backbone_settings import Backbone
    from dmlbench.study.settings import Recipe


class EmbeddingModel(nn.Module):
    """Images (B, channels, S, S), float in [0, 1], RGB or gray -> embeddings (B, dim), float32.

    Embeddings are not normalised. Under autocast, the trunk alone computes in the lower precision:
    a head in bfloat16 would round the embeddings to 3 digits. If the recipe says `freeze_bn`, the
    trunk's batch norms keep their statistics and affine parameters, and are folded into the
    convolutions before them. If not, `bn_momentum` is the momentum of all batch norms.

    Args:
        backbone: type, dim, image_size, head and pretrained weights, as a study has them.
        recipe: its `pooling`, `freeze_bn` and `bn_momentum`.
        channels: 3 or 1.

    Raises:
        MissingWeights: pretrained weights are wanted, and there are none.
        BrokenInstallation: timm does not import.
        ValueError: the head does not fit the trunk, or the size of the images does not fit the
            trunk or the head.

    >>> from dmlbench.study.backbone_settings import Backbone
    >>> from dmlbench.study.settings import Recipe
    >>> backbone = Backbone(type="test_resnet", dim=16, image_size=32)
    >>> model = EmbeddingModel(backbone, Recipe(), channels=3)
    >>> model(torch.rand(4, 3, 32, 32)).shape
    torch.Size([4, 16])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, recipe: Recipe, channels: int) -> None:
        super().__init__()
        self.trunk, expected = create_trunk(
            backbone.type,
            channels=channels,
            image_size=backbone.image_size,
            pooling=recipe.pooling,
            pretrained=backbone.pretrained,
        )
        side = backbone.image_size
        image = torch.zeros(1, channels, side, side)
        with torch.no_grad():
            self.head = HEADS[backbone.head](self.trunk.eval(), image, backbone.dim)
        self.freeze_bn = recipe.freeze_bn
        self.channel_order = expected.channel_order
        self.register_buffer("mean", torch.tensor(expected.mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(expected.std).view(-1, 1, 1), persistent=False)
        if self.freeze_bn:
            for layer in _batch_norms(self.trunk):
                layer.requires_grad_(False)
        elif recipe.bn_momentum is not None:
            for layer in _batch_norms(self):
                layer.momentum = recipe.bn_momentum
        # It is faster, on a GPU and on a CPU
        self.to(memory_format=torch.channels_last)
        self.train()
        if self.freeze_bn:
            from dmlbench.backbones.folding import fold  # imports timm, which controls do not need

            def features(trunk: nn.Module) -> object:
                return self.head.features(trunk, torch.rand_like(image, dtype=torch.float64))

            fold(self.trunk, features)

    def forward(self, images: Tensor, train_trunk: bool = True) -> Tensor:
        """The embeddings of `images`; without `train_trunk`, only the head gets a gradient."""
        with torch.set_grad_enabled(train_trunk and torch.is_grad_enabled()):
            if self.channel_order == "BGR":
                images = images.flip(1)
            images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
            features = self.head.features(self.trunk, images)
        return _in_float32(self.head, features, images.device.type)

    def train(self, mode: bool = True) -> EmbeddingModel:
        """Switch to training or evaluation. Frozen batch norms stay in evaluation."""
        super().train(mode)
        if self.freeze_bn:
            for layer in _batch_norms(self.trunk):
                layer.eval()
        return self


class HeadModel(nn.Module):
    """Features (B, F) of a frozen trunk -> embeddings (B, dim), float32.

    Its tensors have the names that they have in an `EmbeddingModel`.

    Args:
        backbone: its `head` and `dim`.
        count: F, the number of features of an image.

    >>> from dmlbench.study.backbone_settings import Backbone
    >>> model = HeadModel(Backbone(type="resnet50", dim=16, trunk="frozen"), count=2048)
    >>> model(torch.rand(4, 2048)).shape
    torch.Size([4, 16])
    """

    def __init__(self, backbone: Backbone, count: int) -> None:
        super().__init__()
        self.trunk = nn.Identity()
        self.head = HEADS[backbone.head](self.trunk, torch.zeros(1, count), backbone.dim)

    def forward(self, features: Tensor, train_trunk: bool = True) -> Tensor:
        """The embeddings of `features`; `train_trunk` has no meaning here."""
        return _in_float32(self.head, features, features.device.type)


def _in_float32(head: nn.Module, features: object, device: str) -> Tensor:
    """The embeddings of `features` (a tensor, or several); `head` does not take part in
    autocast."""
    embeddings: Tensor
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            embeddings = head(tree_map(Tensor.float, features))
    else:
        embeddings = head(features)
    return embeddings


TrainedModel = EmbeddingModel | HeadModel
"""What a training changes."""


def _batch_norms(model: nn.Module) -> list[_BatchNorm]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]
