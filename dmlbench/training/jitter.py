"""Colour jitter of a whole batch on its device: torchvision's ColorJitter, image by image.

Each image has its own order of the changes and its own strengths. In each turn, every kind of
change is applied to the whole batch. Images that have another change in this turn get the factor
that does nothing. So no image is picked out, and nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.study.settings import Jitter

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue, as in torchvision."""


def draw(
    strengths: Jitter, images: int, random: np.random.Generator
) -> dict[str, NDArray[np.float32]]:
    """Draw the factors of each kind of change whose strength is not 0.

    Returns:
        Kind -> (turns, images) factors. There are as many turns as kinds.
    """
    kinds = [kind for kind, strength in strengths if strength]
    turn_of = random.permuted(np.tile(np.arange(len(kinds)), (images, 1)), axis=1)
    turns = np.arange(len(kinds))[:, None]
    factors = {}
    for column, kind in enumerate(kinds):
        strength, neutral = getattr(strengths, kind), float(kind != "hue")
        low = neutral - strength if kind == "hue" else max(0.0, 1 - strength)
        drawn = random.uniform(low, neutral + strength, images)
        factors[kind] = np.where(turn_of[:, column] == turns, drawn, neutral).astype(np.float32)
    return factors


def jitter(images: Tensor, factors: dict[str, Tensor]) -> Tensor:
    """Change the colours of a batch.

    Args:
        images: (B, 1 or 3, H, W) floats in [0, 1]. Gray images have no saturation and no hue.
        factors: kind of change -> (turns, B).
    """
    for turn in zip(*factors.values(), strict=True):
        for kind, factor in zip(factors, turn, strict=True):
            images = CHANGES[kind](images, factor[:, None, None, None])
    return images


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply all values."""
    return (images * factor).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply the difference from the mean luma of each image."""
    return _blend(images, luma(images).mean((1, 2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply the difference from the luma of each pixel."""
    return images if images.shape[1] == 1 else _blend(images, luma(images), factor)


def hue(images: Tensor, factor: Tensor) -> Tensor:
    """Turn the hue by `factor` of the colour circle, without a change of value and saturation (as
    defined in HSV)."""
    if images.shape[1] == 1:
        return images
    value, strongest = images.max(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    divisor = chroma.where(chroma > 0, torch.ones_like(chroma))
    sixths = torch.cat([(green - blue), (blue - red), (red - green)], dim=1) / divisor
    sixths = sixths.gather(1, strongest) + 2 * strongest + 6 * factor
    # for red, green and blue: how far the hue is from where that colour ceases to be the strongest
    offsets = torch.arange(5, 0, -2, dtype=images.dtype, device=images.device)
    distance = (sixths + offsets.view(-1, 1, 1)) % 6
    turned = value - chroma * torch.minimum(distance, 4 - distance).clamp_(0, 1)
    return turned.where(factor != 0, images)


CHANGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "hue": hue,
}


def luma(images: Tensor) -> Tensor:
    """The luma (B, 1, H, W) of images (B, C, H, W)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * images + (1 - factor) * other).clamp_(0, 1)
