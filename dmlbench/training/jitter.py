"""Colour jitter of a whole batch, where it lies: torchvision's ColorJitter, image by image.

Each image has its own order of the changes and its own strengths. In each turn every kind of
change is made to the whole batch, with the factor that does nothing for the images whose turn it
is not: no image is picked out, so nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.settings import Jitter

LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue, as torchvision has them


def draw(how: Jitter, images: int, random: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Factors (turns, images) of each kind of change that `how` has, in as many turns."""
    kinds = [kind for kind, strength in how if strength]
    turn_of = random.permuted(np.tile(np.arange(len(kinds)), (images, 1)), axis=1)
    turns = np.arange(len(kinds))[:, None]
    factors = {}
    for place, kind in enumerate(kinds):
        strength, nothing = getattr(how, kind), float(kind != "hue")
        low = nothing - strength if kind == "hue" else max(0.0, 1 - strength)
        drawn = random.uniform(low, nothing + strength, images)
        factors[kind] = np.where(turn_of[:, place] == turns, drawn, nothing).astype(np.float32)
    return factors


def jitter(images: Tensor, factors: dict[str, Tensor]) -> Tensor:
    """Change the colours of `images` (B, 1 or 3, H, W), floats in [0, 1], by `factors` (T, B) of
    each kind. Gray images have no saturation and no hue."""
    for turn in zip(*factors.values(), strict=True):
        for kind, factor in zip(factors, turn, strict=True):
            images = CHANGES[kind](images, factor[:, None, None, None])
    return images


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Away from, or towards, the mean of each image's luma."""
    return _blend(images, luma(images).mean((1, 2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Away from, or towards, each pixel's luma."""
    return images if images.shape[1] == 1 else _blend(images, luma(images), factor)


def hue(images: Tensor, factor: Tensor) -> Tensor:
    """Turn the hue by `factor` of the circle; value and saturation (as of HSV) stay."""
    if images.shape[1] == 1:
        return images
    value, strongest = images.max(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    divisor = chroma.where(chroma > 0, torch.ones_like(chroma))
    sixths = torch.cat([(green - blue), (blue - red), (red - green)], dim=1) / divisor
    sixths = sixths.gather(1, strongest) + 2 * strongest + 6 * factor
    # of red, green and blue: how far the hue is from where that colour ceases to be the strongest
    offsets = torch.arange(5, 0, -2, dtype=images.dtype, device=images.device)
    place = (sixths + offsets.view(-1, 1, 1)) % 6
    turned = value - chroma * torch.minimum(place, 4 - place).clamp_(0, 1)
    return turned.where(factor != 0, images)


CHANGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "hue": hue,
}


def luma(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 1, H, W)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * images + (1 - factor) * other).clamp_(0, 1)
