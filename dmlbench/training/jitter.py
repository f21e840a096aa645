"""Colour jitter of a whole batch on its device: torchvision's ColorJitter, image by image.

Each image has its own order of the changes and its own strengths. The batch goes through steps of
a fixed order: in some, each image gets its next change of brightness, contrast or saturation; in
one, each gets its change of hue, which costs most. An image that has no change in a step gets the
factor that does nothing. So no image is picked out, and nothing waits for the device.
"""

from __future__ import annotations

import math
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
        Kind -> factors. Those of hue are (images,), those of the other kinds (steps, images); 1 is
        no change. If there is hue, half of the steps are before it and half after it.
    """
    kinds = [kind for kind, strength in strengths if strength]
    turn_of = random.permuted(np.tile(np.arange(len(kinds)), (images, 1)), axis=1)
    steps = np.arange(len(kinds))[:, None]
    in_step = {kind: turn_of[:, column] == steps for column, kind in enumerate(kinds)}
    if "hue" in kinds:
        # Before the hue no image has its last change, and after it none has its first
        hue_turn = turn_of[:, kinds.index("hue")]
        before, after = (steps < hue_turn)[:-1], (steps > hue_turn)[1:]
        in_step = {
            kind: np.concatenate([turn[:-1] & before, turn[1:] & after])
            for kind, turn in in_step.items()
        }
    factors = {}
    for kind in kinds:
        strength = getattr(strengths, kind)
        if kind == "hue":
            factor = random.uniform(-strength, strength, images)
        else:
            drawn = random.uniform(max(0.0, 1 - strength), 1 + strength, images)
            factor = np.where(in_step[kind], drawn, 1.0)
        factors[kind] = factor.astype(np.float32)
    return factors


def jitter(images: Tensor, factors: dict[str, Tensor]) -> Tensor:
    """Change the colours of a batch.

    Args:
        images: (B, 1 or 3, H, W) floats in [0, 1]. Gray images have no saturation and no hue.
        factors: as `draw` returns them.
    """
    factors = {kind: factor[..., None, None, None] for kind, factor in factors.items()}
    turned_by = factors.pop("hue", None)
    if images.shape[1] == 1:
        factors.pop("saturation", None)
    steps = blend_weights(factors)
    before = len(steps) if turned_by is None else len(steps) // 2
    for weights in steps[:before]:
        images = blend(images, **weights)
    if turned_by is not None and images.shape[1] == 3:
        images = hue(images, turned_by)
    for weights in steps[before:]:
        images = blend(images, **weights)
    return images


def blend_weights(factors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The weights of `blend` for each step.

    Args:
        factors: those of brightness, contrast and saturation, (steps, B, 1, 1, 1) each.
    """
    if not factors:
        return []
    weights = {"own": math.prod(factors.values())}  # all but one are 1: an image has one change
    if "contrast" in factors:
        weights["of_mean"] = 1 - factors["contrast"]
    if "saturation" in factors:
        weights["of_luma"] = 1 - factors["saturation"]
    return [dict(zip(weights, step, strict=True)) for step in zip(*weights.values(), strict=True)]


def blend(
    images: Tensor, own: Tensor, of_mean: Tensor | None = None, of_luma: Tensor | None = None
) -> Tensor:
    """Sum images, the mean luma of each, and the luma of each pixel, by their weights.

    Brightness is a weight of the image alone. Contrast and saturation are a weight `own` of the
    image and 1 - own of the mean luma, or of the luma.
    """
    blended = images * own
    if of_mean is not None or of_luma is not None:
        gray = luma(images)
        other = 0 if of_mean is None else of_mean * gray.mean((1, 2, 3), keepdim=True)
        blended += other if of_luma is None else of_luma * gray + other
    return blended.clamp_(0, 1)


def hue(images: Tensor, factor: Tensor) -> Tensor:
    """Turn the hue by `factor` of the colour circle, without a change of value and saturation (as
    defined in HSV)."""
    value, strongest = images.max(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    # how much the two other colours differ, relative to the chroma: 0 without chroma
    differences = torch.empty_like(images)
    for place in range(3):
        after, before = ((place + turn) % 3 for turn in (1, 2))
        torch.sub(images[:, after], images[:, before], out=differences[:, place])
    sixths = differences.gather(1, strongest)
    sixths /= chroma.clamp(min=torch.finfo(chroma.dtype).tiny)
    sixths.add_(strongest, alpha=2).add_(6 * factor)
    # for red, green and blue: how far the hue is from where that colour ceases to be the strongest
    offsets = torch.arange(5, 0, -2, dtype=images.dtype, device=images.device)
    distance = (sixths + offsets.view(-1, 1, 1)).remainder_(6)
    turned = torch.minimum(distance, 4 - distance).clamp_(0, 1).mul_(chroma)
    return torch.sub(value, turned, out=turned)


def luma(images: Tensor) -> Tensor:
    """The luma (B, 1, H, W) of images (B, C, H, W)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return (LUMA[0] * red).add_(LUMA[1] * green).add_(LUMA[2] * blue)
