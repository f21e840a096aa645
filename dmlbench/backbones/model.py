"""The model that is trained: a backbone's trunk and an embedding head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dmlbench.backbones.heads import HEADS
from dmlbench.backbones.timm import create_trunk

if TYPE_CHECKING:
    from dmlbench.settings import Backbone, Recipe


class EmbeddingModel(nn.Module):
    """RGB or gray images (B, channels, S, S), float in [0, 1] -> embeddings (B, dim), not
    normalised."""

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
            for layer in self._batch_norms():
                layer.requires_grad_(False)
        # faster on GPU and CPU alike
        self.to(memory_format=torch.channels_last)
        self.train()
        if self.freeze_bn:
            from dmlbench.backbones.folding import fold  # timm, which controls do without

            def features(trunk: nn.Module) -> object:
                return self.head.features(trunk, torch.rand_like(image, dtype=torch.float64))

            fold(self.trunk, features)

    def forward(self, images: Tensor, train_trunk: bool = True) -> Tensor:
        with torch.set_grad_enabled(train_trunk and torch.is_grad_enabled()):
            if self.channel_order == "BGR":
                images = images.flip(1)
            images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
            features = self.head.features(self.trunk, images)
        return self.head(features)

    def train(self, mode: bool = True) -> EmbeddingModel:
        super().train(mode)
        if self.freeze_bn:
            for layer in self._batch_norms():
                layer.eval()
        return self

    def _batch_norms(self) -> list[nn.Module]:
        # timm's BatchNormAct2d is one too; synchronised batch norm shares the base class
        return [m for m in self.trunk.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
