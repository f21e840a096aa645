"""Which images make a batch, and how their pixels become a training or a test image.

A crop is cut out and resampled where its image is read, so a batch travels to the device as few
bytes. On the device it is mirrored, becomes floats and changes its colours. All of this is a pure
function of (seed, epoch, step), so a resumed training draws the same as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dmlbench.datasets.store.images import Images
from dmlbench.training import jitter
from dmlbench.training.small_crops import Axis, axes, small_crops

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmlbench.datasets.store.reader import Store
    from dmlbench.study.settings import Augmentation

CROP_TRIES = 10
"""As in torchvision's RandomResizedCrop."""
PARTS = 8
"""Parts of a batch that threads may prepare at the same time."""


def sample(
    labels: NDArray[np.int64],
    steps: int,
    batch_size: int,
    images_per_class: int | None,
    seed: int,
    epoch: int,
    sampler: Literal["rounds", "per_batch"] = "rounds",
) -> NDArray[np.int64]:
    """Draw the batches of an epoch: P classes with K images each, or shuffled images.

    A class gives K different images if it has that many. "rounds" deals the classes in shuffled
    rounds, so each is seen as often as any other. "per_batch" draws P different classes anew for
    each batch, as the usual M-per-class sampler does; so the counts of classes differ by chance.

    Args:
        labels: (N,) class of each image, dense: 0 .. C-1.
        steps: batches.
        batch_size: P x K.
        images_per_class: K; None: all images in shuffled order, whatever the sampler is.

    Returns:
        (steps, batch_size) indices into `labels`.

    Raises:
        ValueError: there are fewer than P classes.

    >>> labels = np.repeat(np.arange(4), 3)  # four classes of three images
    >>> rows = sample(labels, steps=2, batch_size=4, images_per_class=2, seed=0, epoch=0)
    >>> rows.shape
    (2, 4)
    >>> np.bincount(labels[rows].ravel()).tolist()  # one round: two images of each class
    [2, 2, 2, 2]
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
    draw_classes = {"rounds": _deal_rounds, "per_batch": _draw_anew}[sampler]
    drawn = draw_classes(len(members), classes_per_batch, random)
    for step, classes in enumerate(islice(drawn, steps)):
        for place, label in enumerate(classes):
            images = members[label]
            too_few = len(images) < images_per_class
            rows[step, place] = random.choice(images, images_per_class, replace=too_few)
    return rows.reshape(steps, batch_size)


def _deal_rounds(classes: int, per_batch: int, random: np.random.Generator) -> Iterator[list[int]]:
    """The classes of one batch after the other, dealt from shuffled rounds of all classes."""
    pending: list[int] = []
    while True:
        # A new round begins if the rest of the last one does not fill the batch. The rest comes
        # first, and the new round has its classes at the end, so that no class comes twice.
        if len(pending) < per_batch:
            new_round = random.permutation(classes).tolist()
            rest = set(pending)
            pending += [c for c in new_round if c not in rest]
            pending += [c for c in new_round if c in rest]
        yield pending[:per_batch]
        del pending[:per_batch]


def _draw_anew(classes: int, per_batch: int, random: np.random.Generator) -> Iterator[list[int]]:
    """The classes of one batch after the other, each batch drawn from all classes."""
    while True:
        yield random.choice(classes, per_batch, replace=False).tolist()


def draw(
    sizes: NDArray[np.int64], augmentation: Augmentation, random: np.random.Generator
) -> tuple[NDArray[np.int64], dict[str, Tensor]]:
    """Draw the augmentation of a batch.

    Args:
        sizes: (B, 2) heights and widths of the images.

    Returns:
        The boxes (B, 4) for `crops`, and the further arguments of `floats`, by name.
    """
    boxes = random_boxes(sizes, augmentation.crop_scale, augmentation.crop_ratio, random)
    drawn: dict[str, NDArray] = {}
    if augmentation.flip:
        drawn["mirrored"] = random.random(len(sizes)) < 0.5
    drawn |= jitter.draw(augmentation.jitter, len(sizes), random)
    return boxes, {name: torch.from_numpy(values) for name, values in drawn.items()}


def central_boxes(sizes: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """The central square of each image, which is what a test sees.

    Args:
        sizes: (B, 2) heights and widths.
        side: of the square, in pixels.

    Returns:
        (B, 4) top, left, height and width in pixels.
    """
    corner = np.round((sizes - side) / 2).astype(np.int64)
    return np.concatenate([corner, np.full_like(corner, side)], axis=1)


def random_boxes(
    sizes: NDArray[np.int64],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw random crops with the distribution of torchvision's RandomResizedCrop.

    It is the first of ten tries that fits into the image. If none fits, it is the largest central
    crop of an allowed aspect ratio.

    Args:
        sizes: (B, 2) heights and widths.
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest aspect ratio, width / height.

    Returns:
        (B, 4) top, left, height and width in whole pixels.
    """
    shape = (len(sizes), CROP_TRIES)
    height, width = sizes[:, :1].astype(float), sizes[:, 1:].astype(float)
    area = height * width * random.uniform(*scale, shape)
    aspect = np.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1]), shape))
    tried_h, tried_w = np.round(np.sqrt(area / aspect)), np.round(np.sqrt(area * aspect))
    fits = (tried_h >= 1) & (tried_h <= height) & (tried_w >= 1) & (tried_w <= width)
    first = fits.argmax(axis=1, keepdims=True)
    any_fits = fits.any(axis=1, keepdims=True)
    central_ratio = np.clip(width / height, *ratio)
    central_h = np.minimum(height, np.round(width / central_ratio))
    central_w = np.minimum(width, np.round(height * central_ratio))
    h = np.where(any_fits, np.take_along_axis(tried_h, first, 1), central_h)
    w = np.where(any_fits, np.take_along_axis(tried_w, first, 1), central_w)
    place = random.random((len(sizes), 2))
    top = np.where(any_fits, np.floor(place[:, :1] * (height - h + 1)), np.round((height - h) / 2))
    left = np.where(any_fits, np.floor(place[:, 1:] * (width - w + 1)), np.round((width - w) / 2))
    return np.concatenate([top, left, h, w], axis=1).astype(np.int64)


def crops(
    images: Sequence[NDArray[np.uint8]] | Store,
    rows: NDArray[np.int64],
    boxes: NDArray[np.int64],
    side: int,
    map_function: Callable[..., Iterable[Any]] = map,
) -> Tensor:
    """Cut `boxes` (B, 4) out of `images[rows]`, and resample each to a square.

    The resampling is bilinear, antialiased, and in bytes. The result equals that of torchvision's
    resized_crop bit for bit.

    Args:
        images: each (C, H, W).
        rows: (B,).
        boxes: as `random_boxes` returns them.
        side: of the squares, in pixels.
        map_function: `map`, or the `map` of a pool of threads; the result is the same.

    Returns:
        (B, C, side, side) uint8.
    """
    if isinstance(images, Images) and images.shape and (weights := axes(*images.shape, side)):
        return _crop_small(images, rows, boxes, weights, map_function)
    squares = np.empty((len(rows), len(images[rows[0]]), side, side), np.uint8)
    tasks = [*zip(squares, rows.tolist(), boxes.tolist(), strict=True)]

    @torch.inference_mode()  # for small images it saves a tenth of the time
    def fill(part: slice) -> None:
        for square, row, (top, left, height, width) in tasks[part]:
            crop = images[row][:, top : top + height, left : left + width]
            if (height, width) != (side, side):
                source = torch.from_numpy(crop.copy()[None])  # torch takes no read-only memory
                crop = functional.interpolate(
                    source, (side, side), mode="bilinear", antialias=True
                ).numpy()[0]
            square[:] = crop

    for _ in map_function(fill, [slice(first, None, PARTS) for first in range(PARTS)]):
        pass
    return torch.from_numpy(squares)


def _crop_small(
    images: Images,
    rows: NDArray[np.int64],
    boxes: NDArray[np.int64],
    weights: tuple[Axis, Axis],
    map_function: Callable[..., Iterable[Any]],
) -> Tensor:
    """As `crops`, from small images of one shape."""

    @torch.inference_mode()
    def crop(part: slice) -> Tensor:
        stack = torch.from_numpy(images.stack(rows[part]))
        return small_crops(stack, torch.from_numpy(boxes[part]), *weights)

    step = -(-len(rows) // (1 if map_function is map else PARTS))
    parts = [slice(first, first + step) for first in range(0, len(rows), step)]
    return torch.cat([*map_function(crop, parts)])


def floats(squares: Tensor, mirrored: Tensor | None = None, **factors: Tensor) -> Tensor:
    """Turn bytes into floats in [0, 1], mirror some images, and change the colours.

    Args:
        squares: (B, C, S, S) uint8.
        mirrored: (B,) whether left and right are exchanged; None: no image is mirrored.
        factors: kind of change -> factors, as `jitter.draw` returns them.
    """
    if mirrored is not None:
        squares = torch.where(mirrored[:, None, None, None], squares.flip(-1), squares)
    return jitter.jitter(squares.float().div_(255), factors)
