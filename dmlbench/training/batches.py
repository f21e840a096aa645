"""Which images make a batch, and how their pixels become a training or a test image.

A crop is cut out and resampled where its image is read, so that a batch travels to the device as
small bytes; there it is mirrored, becomes floats and changes its colours. All of it is a pure
function of (seed, epoch, step), so a resumed training draws what an uninterrupted one would have
drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dmlbench.training import jitter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.datasets.store import Store
    from dmlbench.settings import Augmentation

CROP_TRIES = 10  # torchvision's RandomResizedCrop
PARTS = 8  # of a batch, which threads may prepare at the same time


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


def draw(
    sizes: NDArray[np.int64], how: Augmentation, random: np.random.Generator
) -> tuple[NDArray[np.int64], dict[str, Tensor]]:
    """A batch's random resized crops (B, 4), as of `random_boxes`, and what `floats` takes beside
    the squares: whatever `how` asks for."""
    boxes = random_boxes(sizes, how.crop_scale, how.crop_ratio, random)
    drawn: dict[str, NDArray] = {}
    if how.flip:
        drawn["mirrored"] = random.random(len(sizes)) < 0.5
    drawn |= jitter.draw(how.jitter, len(sizes), random)
    return boxes, {name: torch.from_numpy(values) for name, values in drawn.items()}


def central_boxes(sizes: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """The central square of each image, which is what a test sees; as of `random_boxes`."""
    corner = np.round((sizes - side) / 2).astype(np.int64)
    return np.concatenate([corner, np.full_like(corner, side)], axis=1)


def random_boxes(
    sizes: NDArray[np.int64],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    random: np.random.Generator,
) -> NDArray[np.int64]:
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
    return np.concatenate([top, left, h, w], axis=1).astype(np.int64)


def crops(
    images: Sequence[NDArray[np.uint8]] | Store,
    rows: NDArray[np.int64],
    boxes: NDArray[np.int64],
    side: int,
    each: Callable[..., Iterable[None]] = map,
) -> Tensor:
    """Cut `boxes` (B, 4) out of `images[rows]` and resample each to a square of `side` pixels,
    bilinearly and antialiased, in bytes: what torchvision's resized_crop gives, bit for bit.

    `each` is `map`, or that of a pool of threads; the result is the same.

    Returns:
        (B, C, side, side) uint8.
    """
    squares = np.empty((len(rows), len(images[rows[0]]), side, side), np.uint8)
    wanted = [*zip(squares, rows.tolist(), boxes.tolist(), strict=True)]

    @torch.inference_mode()  # of small images, a tenth of the time
    def fill(part: slice) -> None:
        for square, row, (top, left, height, width) in wanted[part]:
            crop = images[row][:, top : top + height, left : left + width]
            if (height, width) != (side, side):
                source = torch.from_numpy(crop.copy()[None])  # torch takes no read-only memory
                crop = functional.interpolate(
                    source, (side, side), mode="bilinear", antialias=True
                ).numpy()[0]
            square[:] = crop

    for _ in each(fill, [slice(first, None, PARTS) for first in range(PARTS)]):
        pass
    return torch.from_numpy(squares)


def floats(squares: Tensor, mirrored: Tensor | None = None, **factors: Tensor) -> Tensor:
    """(B, C, S, S) uint8 -> float in [0, 1], left and right exchanged where `mirrored` (B,), then
    the colours changed by the `factors` of jitter.py."""
    if mirrored is not None:
        squares = torch.where(mirrored[:, None, None, None], squares.flip(-1), squares)
    return jitter.jitter(squares.float().div_(255), factors)
