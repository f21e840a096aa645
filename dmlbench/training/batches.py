"""Which images make a batch, and how their pixels become a training or a test image.

All of it is a pure function of (seed, epoch, step), so a resumed training draws what an
uninterrupted one would have drawn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.settings import Augmentation

CROP_TRIES = 10  # torchvision's RandomResizedCrop


def sample(
    labels: NDArray[np.int64],
    steps: int,
    batch_size: int,
    images_per_class: int | None,
    seed: int,
    epoch: int,
) -> NDArray[np.int64]:
    """Rows of an epoch's batches, (steps, batch_size).

    P x K where `images_per_class` = K: classes come in shuffled rounds, so that each is seen
    as often as any other, and a class gives K different images where it has them. Else: the
    images in shuffled order. `labels` (N,) are dense, 0..C-1.
    """
    random = np.random.default_rng([seed, epoch])
    if images_per_class is None:
        return random.permutation(len(labels))[: steps * batch_size].reshape(steps, batch_size)
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
    classes_per_batch = batch_size // images_per_class
    if classes_per_batch > len(members):
        raise ValueError(
            f"recipe.batch_size: {batch_size} / images_per_class {images_per_class} = "
            f"{classes_per_batch} classes a batch, and there are {len(members)} to train on"
        )
    rows = np.empty((steps, classes_per_batch, images_per_class), dtype=np.int64)
    waiting: list[int] = []
    for step in range(steps):
        # A new round begins where the last one's rest does not fill the batch. The rest comes
        # first, and the round leaves its classes to the end, so that no class comes twice.
        if len(waiting) < classes_per_batch:
            fresh = random.permutation(len(members)).tolist()
            rest = set(waiting)
            waiting += [c for c in fresh if c not in rest] + [c for c in fresh if c in rest]
        for place in range(classes_per_batch):
            images = members[waiting[place]]
            short = len(images) < images_per_class
            rows[step, place] = random.choice(images, images_per_class, replace=short)
        del waiting[:classes_per_batch]
    return rows.reshape(steps, batch_size)


def augment(
    images: Tensor,
    sizes: NDArray[np.int64],
    side: int,
    how: Augmentation,
    random: np.random.Generator,
) -> Tensor:
    """Random resized crop and flip of a batch.

    Args:
        images: (B, C, H, W) uint8 on any device; image b fills [:sizes[b, 0], :sizes[b, 1]].
        side: of the square result in pixels.

    Returns:
        (B, C, side, side) float in [0, 1] on the same device.
    """
    boxes = random_boxes(sizes, how.crop_scale, how.crop_ratio, random)
    flips = random.random(len(sizes)) < 0.5 if how.flip else np.zeros(len(sizes), dtype=bool)
    return crop(images, sizes, boxes, flips, side)


def centre(images: Tensor, sizes: NDArray[np.int64], side: int) -> Tensor:
    """Central square of each image; arguments and result as of `augment`."""
    corner = np.round((sizes - side) / 2)
    boxes = np.concatenate([corner, np.full_like(corner, side)], axis=1)
    return crop(images, sizes, boxes, np.zeros(len(sizes), dtype=bool), side)


def random_boxes(
    sizes: NDArray[np.int64],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    random: np.random.Generator,
) -> NDArray[np.float64]:
    """Crops (B, 4) as top, left, height, width in whole pixels, distributed as torchvision's
    RandomResizedCrop draws them: the first of ten tries that fits, else the largest central
    crop of an allowed aspect ratio. `sizes` (B, 2) are heights and widths."""
    shape = (len(sizes), CROP_TRIES)
    height, width = sizes[:, :1].astype(float), sizes[:, 1:].astype(float)
    area = height * width * random.uniform(*scale, shape)
    aspect = np.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1]), shape))
    tried_h, tried_w = np.round(np.sqrt(area / aspect)), np.round(np.sqrt(area * aspect))
    fits = (tried_h >= 1) & (tried_h <= height) & (tried_w >= 1) & (tried_w <= width)
    first = fits.argmax(axis=1, keepdims=True)
    fallback = np.clip(width / height, *ratio)
    found = fits.any(axis=1, keepdims=True)
    whole_h = np.minimum(height, np.round(width / fallback))
    whole_w = np.minimum(width, np.round(height * fallback))
    h = np.where(found, np.take_along_axis(tried_h, first, 1), whole_h)
    w = np.where(found, np.take_along_axis(tried_w, first, 1), whole_w)
    place = random.random((len(sizes), 2))
    top = np.where(found, np.floor(place[:, :1] * (height - h + 1)), np.round((height - h) / 2))
    left = np.where(found, np.floor(place[:, 1:] * (width - w + 1)), np.round((width - w) / 2))
    return np.concatenate([top, left, h, w], axis=1)


def crop(
    images: Tensor,
    sizes: NDArray[np.int64],
    boxes: NDArray[np.float64],
    flips: NDArray[np.bool_],
    side: int,
) -> Tensor:
    """Resample `boxes` (B, 4) of a batch bilinearly to squares of `side`, mirrored where `flips`.

    One kernel for the whole batch. Samples stay inside their image, so the padding of a batch
    of unequal images is never seen."""
    height, width = images.shape[-2:]
    top, left, h, w = torch.as_tensor(boxes, dtype=torch.float32).T
    extent = torch.as_tensor(sizes, dtype=torch.float32)
    centres = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    mirrored = torch.as_tensor(flips)[:, None]
    across = torch.where(mirrored, 1 - centres, centres) * w[:, None] + left[:, None]
    down = centres * h[:, None] + top[:, None]
    # pixel centres to grid_sample's coordinates, in which the batch's frame is [-1, 1]
    across = across.clamp(min=0.5).minimum(extent[:, 1:] - 0.5) * 2 / width - 1
    down = down.clamp(min=0.5).minimum(extent[:, :1] - 0.5) * 2 / height - 1
    rows, columns = down.to(images.device), across.to(images.device)
    grid = torch.stack(
        [columns[:, None, :].expand(-1, side, -1), rows[:, :, None].expand(-1, -1, side)], dim=-1
    )
    return functional.grid_sample(images.float(), grid, align_corners=False).div_(255)
