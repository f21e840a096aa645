"""Heads: what they take from a trunk, and the embedding that they make of it.

A head is built on a trunk and an image of the size that it will see. `features(trunk, images)`
is what it takes, which a warm-up computes without a gradient; `forward(features)` the embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

POOL = 5
"""Side of the windows that the lower branches of low_mid_high average."""


class Linear(nn.Linear):
    """One linear layer on the trunk's pooled features."""

    def __init__(self, trunk: nn.Module, images: Tensor, dim: int) -> None:
        super().__init__(trunk(images).shape[1], dim)

    def features(self, trunk: Any, images: Tensor) -> Tensor:
        return trunk(images)


class LowMidHigh(nn.Module):
    """RLL-(L,M,H): an embedding of dim / 3 from each of three depths, concatenated in that order.

    Wang et al., Ranked List Loss, CVPR 2019, with the branches of the authors' network: averages
    over 5x5 windows at stride 3, 1x1 convolution to 128 channels, a layer of 1024; the highest one
    is linear on the trunk's pooled features. Depths: `depths`.
    """

    def __init__(self, trunk: nn.Module, images: Tensor, dim: int) -> None:
        super().__init__()
        self.levels = depths(trunk)
        low, middle, high = self.features(trunk, images)
        for name, level in (("low", low), ("middle", middle)):
            if (side := min(level.shape[2:])) < POOL:
                given, least = images.shape[-1], -(-POOL * images.shape[-1] // side)
                raise ValueError(
                    f"backbones.<name>.head: low_mid_high averages {POOL}x{POOL} windows, and the "
                    f"{name} level of {_name(trunk)} has {side}x{side} for images of {given} "
                    f"pixels. Take image_size: {least} or more, or head: linear."
                )
        self.low = _branch(low, dim // 3)
        self.middle = _branch(middle, dim // 3)
        self.high = nn.Linear(high.shape[1], dim // 3)

    def features(self, trunk: Any, images: Tensor) -> list[Tensor]:
        # some models stop after the last of the levels if nothing is said
        last, levels = trunk.forward_intermediates(images, indices=self.levels, stop_early=False)
        return [*levels, trunk.forward_head(last)]

    def forward(self, features: list[Tensor]) -> Tensor:
        low, middle, high = features
        return torch.cat([self.low(low), self.middle(middle), self.high(high)], dim=1)


def depths(trunk: nn.Module) -> list[int]:
    """Levels of the low and the middle features among those that timm's `feature_info` lists: the
    two before the last (strides 8 and 16 of most networks; 3c and 4e of BN-Inception); where all
    have one stride, as in a ViT, those after a third and two thirds of the blocks.

    Raises:
        ValueError: the model gives no features of three depths.
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
    """(B, channels, S, S), as `level` is -> (B, dim)."""
    # Caffe's pooling rounds up: 7x7 gives 2x2
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


HEADS: dict[str, type[Linear] | type[LowMidHigh]] = {"linear": Linear, "low_mid_high": LowMidHigh}
