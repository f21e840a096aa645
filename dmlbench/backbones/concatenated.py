"""Several models as one: their embeddings side by side."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmlbench.backbones.model import TrainedModel


class ConcatenatedModels(nn.Module):
    """Images (B, channels, S, S) -> the embeddings of several models side by side (B, models * D).

    Each embedding (B, D) is scaled to unit length first, so each model has the same weight.

    >>> from dmlbench.study.backbone_settings import Backbone
    >>> from dmlbench.study.settings import Recipe
    >>> backbone = Backbone(type="test_resnet", dim=16, image_size=32)
    >>> from dmlbench.backbones.model import EmbeddingModel
    >>> models = [EmbeddingModel(backbone, Recipe(), channels=3) for _ in range(4)]
    >>> ConcatenatedModels(models)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 64])
    """

    def __init__(self, models: Iterable[TrainedModel]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([functional.normalize(model(images)) for model in self.models], dim=1)
