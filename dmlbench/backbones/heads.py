"""Heads: they compute an embedding (B, dim) from features of a trunk.

A head is built for a trunk, from an image of the size that it will see. `features(trunk, images)`
computes what the head takes; a warm-up does this without a gradient. `forward(features)` computes
the embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

POOL = 5
"""Side of the windows over which the low and the middle branch of low_mid_high average."""


class Linear(nn.Linear):
    """One linear layer on the trunk's pooled features.

    Args:
        trunk: images (B, channels, S, S) -> features (B, F).
        images: one image or more, of the size that the head will see.
        dim: dimension of the embedding.

    >>> trunk = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    >>> images = torch.rand(4, 3, 32, 32)
    >>> head = Linear(trunk, images, dim=8)
    >>> head(head.features(trunk, images)).shape
    torch.Size([4, 8])
    """

    def __init__(self, trunk: nn.Module, images: Tensor, dim: int) -> None:
        super().__init__(trunk(images).shape[1], dim)

    def features(self, trunk: Any, images: Tensor) -> Tensor:
        """The pooled features (B, F) of `images`."""
        return trunk(images)


class MLP(nn.Sequential):
    """Two linear layers on the trunk's pooled features, with a ReLU between them; the hidden layer
    is as wide as the features. See `Linear` for the arguments."""

    def __init__(self, trunk: nn.Module, images: Tensor, dim: int) -> None:
        count = trunk(images).shape[1]
        super().__init__(nn.Linear(count, count), nn.ReLU(inplace=True), nn.Linear(count, dim))

    def features(self, trunk: Any, images: Tensor) -> Tensor:
        """The pooled features (B, F) of `images`."""
        return trunk(images)


class NoHead(nn.Identity):
    """The trunk's pooled features themselves, whatever `dim` is; see `Linear` for the arguments."""

    def __init__(self, trunk: nn.Module, images: Tensor, dim: int) -> None:
        super().__init__()

    def features(self, trunk: Any, images: Tensor) -> Tensor:
        """The pooled features (B, F) of `images`."""
        return trunk(images)


class LowMidHigh(nn.Module):
    """RLL-(L,M,H): embeddings of dim / 3 from three depths of the trunk, concatenated.

    The order is low, middle, high; `depths` says which levels these are. Source: Wang et al.,
    Ranked List Loss, CVPR 2019. The branches are those of the authors' network. Low and middle:
    averages over 5x5 windows at stride 3, a 1x1 convolution to 128 channels, a layer of 1024. High:
    linear on the trunk's pooled features.

    Args:
        trunk: a model of timm, or one with the same `forward_intermediates`.
        images: one image or more, of the size that the head will see.
        dim: dimension of the embedding, a multiple of 3.

    Raises:
        ValueError: the trunk has no features of three depths, or too small ones for the windows.
    """

    def __init__(self, trunk: nn.Module, images: Tensor, dim: int) -> None:
        super().__init__()
        self.levels = depths(trunk)
        low, middle, high = self.features(trunk, images)
        name, level = min(("low", low), ("middle", middle), key=lambda pair: min(pair[1].shape[2:]))
        if (side := min(level.shape[2:])) < POOL:
            image_size = images.shape[-1]
            needed = -(-POOL * image_size // side)
            raise ValueError(
                f"backbones.<name>.head: low_mid_high averages {POOL}x{POOL} windows, and the "
                f"{name} level of {_name(trunk)} has {side}x{side} for images of {image_size} "
                f"pixels. Take image_size: {needed} or more, or head: linear."
            )
        self.low = _branch(low, dim // 3)
        self.middle = _branch(middle, dim // 3)
        self.high = nn.Linear(high.shape[1], dim // 3)

    def features(self, trunk: Any, images: Tensor) -> list[Tensor]:
        """Features of the low and the middle level (B, C, S, S), and the pooled ones (B, F)."""
        # stop_early is True by default in some models; the pooled features need the last level
        last, levels = trunk.forward_intermediates(images, indices=self.levels, stop_early=False)
        return [*levels, trunk.forward_head(last)]

    def forward(self, features: list[Tensor]) -> Tensor:
        low, middle, high = features
        return torch.cat([self.low(low), self.middle(middle), self.high(high)], dim=1)


def depths(trunk: nn.Module) -> list[int]:
    """The levels of the low and the middle features, as numbers in timm's `feature_info`.

    They are the two levels before the last: strides 8 and 16 of most networks, blocks 3c and 4e of
    BN-Inception. If all levels have the same stride, as in a ViT, they are those after a third and
    after two thirds of the blocks.

    Raises:
        ValueError: the model has no features of three depths.
    """
    strides = [level["reduction"] for level in getattr(trunk, "feature_info", [])]
    count = len(strides)
    if count < 3 or not hasattr(trunk, "forward_intermediates"):
        raise ValueError(
            f"backbones.<name>.head: low_mid_high needs features of three depths, which "
            f"{_name(trunk)} does not give. Take another backbone, or head: linear."
        )
    return [count - 3, count - 2] if len({*strides}) > 1 else [count // 3 - 1, 2 * count // 3 - 1]


def _branch(level: Tensor, dim: int) -> nn.Sequential:
    """A branch for features of the shape of `level`: (B, channels, S, S) -> (B, dim)."""
    # As in Caffe, pooling rounds sizes up: 7x7 becomes 2x2
    pool = nn.AvgPool2d(POOL, stride=3, ceil_mode=True)
    side = pool(level).shape[-1]
    return nn.Sequential(
        pool,
        nn.Conv2d(level.shape[1], 128, 1),
        nn.BatchNorm2d(128),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(128 * side**2, 1024),
        nn.BatchNorm1d(1024),
        nn.ReLU(inplace=True),
        nn.Linear(1024, dim),
    )


def _name(trunk: nn.Module) -> str:
    config = getattr(trunk, "pretrained_cfg", {})
    return config.get("architecture") or type(trunk).__name__


HEADS: dict[str, type[Linear] | type[MLP] | type[LowMidHigh] | type[NoHead]] = {
    "linear": Linear,
    "mlp": MLP,
    "low_mid_high": LowMidHigh,
    "none": NoHead,  # of controls; no training has it
}
