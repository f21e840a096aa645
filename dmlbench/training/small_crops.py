"""Crops of small images of one size: a whole batch is resampled by two products of small matrices.

torch resamples bytes with whole-number weights, first along the rows and then along the columns,
and rounds to bytes after each. The same whole numbers in float32 give exact sums as long as these
are below 2^24. So the result has the same bits, without a call for each image.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

MOST_NUMBERS = 48 * 48
"""Of an image, in all channels. For larger ones, products with mostly zeros take longer than a call
for each image."""
LARGEST_SUM = 2**24
"""Whole numbers below it are exact in float32."""
WEIGHT_BITS, MOST_BITS = 15, 22
"""torch's weights have as many bits after the point as fit into 16 bits with a sign, and at most 22
(`upsample_generic_Nd_kernel_impl` in ATen's UpSampleKernel.cpp)."""


class Axis:
    """The weights that resample any part of `length` pixels to `side` pixels."""

    def __init__(self, length: int, side: int) -> None:
        self.length = length
        padded = np.zeros((length + 1, side, 2 * length), np.float32)
        scales = np.ones(length + 1, np.float32)
        self.is_exact = True
        for part in range(1, length + 1):
            weights, bits = _weights(part, side)
            padded[part, :, length : length + part] = weights
            scales[part] = 0.5**bits
            self.is_exact &= 255 * weights.sum(1).max() + 2**bits / 2 < LARGEST_SUM
        self._windows = torch.from_numpy(padded).unfold(2, length, 1)
        self._scales = torch.from_numpy(scales)

    def weights(self, starts: Tensor, parts: Tensor) -> Tensor:
        """(B, side, length) for the parts that begin at `starts` (B,) and have `parts` (B,)
        pixels."""
        return self._windows[parts, :, self.length - starts]

    def scales(self, parts: Tensor) -> Tensor:
        """(B, 1, 1, 1) what the sums are to be multiplied with."""
        return self._scales[parts][:, None, None, None]


def _weights(part: int, side: int) -> tuple[np.ndarray, int]:
    """torch's whole-number weights (side, part), antialiased bilinear, and their bits after the
    point."""
    scale = part / side
    support = max(scale, 1.0)
    centers = scale * (np.arange(side)[:, None] + 0.5)
    first = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    end = np.minimum((centers + support + 0.5).astype(np.int64), part)
    pixels = np.arange(part)[None]
    distances = np.abs((pixels - centers + 0.5) / support)
    weights = np.where((pixels >= first) & (pixels < end), np.maximum(1 - distances, 0), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    bits = 0
    while bits < MOST_BITS and int(0.5 + weights.max() * 2 ** (bits + 1)) < 2**WEIGHT_BITS:
        bits += 1
    return np.floor(weights * 2**bits + 0.5), bits


@cache
def axes(channels: int, height: int, width: int, side: int) -> tuple[Axis, Axis] | None:
    """The weights for the rows and the columns of images; None if they are large, or if the sums
    are not exact, as for squares that are far smaller than the images."""
    if channels * max(height, side) * max(width, side) > MOST_NUMBERS:
        return None
    rows, columns = Axis(height, side), Axis(width, side)
    return (rows, columns) if rows.is_exact and columns.is_exact else None


def small_crops(images: Tensor, boxes: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Cut `boxes` out of `images`, and resample each to a square.

    Args:
        images: (B, C, H, W) uint8.
        boxes: (B, 4) top, left, height and width.
        rows: for the height of the images.
        columns: for their width.

    Returns:
        (B, C, side, side) uint8.
    """
    top, left, height, width = boxes.T
    across = images.float() @ columns.weights(left, width).transpose(1, 2)[:, None]
    across = across.mul_(columns.scales(width)).add_(0.5).floor_()
    down = rows.weights(top, height)[:, None] @ across
    return down.mul_(rows.scales(height)).add_(0.5).to(torch.uint8)
