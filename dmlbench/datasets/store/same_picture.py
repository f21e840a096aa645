"""Do two thumbnails show the same picture, or only similar ones?

A perceptual hash compares what is coarse: two photographs of one scene, or two drawings of a line,
have hashes as near as those of two copies. Copies also agree in their details, once one is laid
over the other. So two pictures are the same if the correlations of their details are high: of
middle details, which survive compression and scaling, and of fine ones, which two drawings do not
share.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import irfft2, rfft2
from scipy.ndimage import gaussian_filter

from dmlbench.datasets.store.thumbnails import SIDE

MIDDLE = (1.0, 4.0)
"""Middle details: the difference of two Gaussian filters with these standard deviations, in pixels
of a thumbnail."""
FINE = 1.0
"""Fine details: what a Gaussian filter with this standard deviation takes away."""
LEAST_MIDDLE, LEAST_FINE = 0.9, 0.85
"""Least correlations of the details of two copies."""
LEAST_FINE_IF_FLAT = 0.92
"""The same for the fine details of flat pictures: two drawings may agree in nearly all of their
strokes."""
SIMPLE_CONTENT = 0.04
"""The content of a picture is the share of its pixels that hold its details. With less than this,
it is a line or a few dots: other such pictures agree with it if they may be moved."""
LEAST_OF_SIMPLE = 0.95
"""Least correlations of the details of two copies of a simple picture, which are not moved."""
SCALES = (0.9, 0.95, 1.0, 1.05, 1.1)
"""A copy may be cropped by up to a tenth in each direction. Each direction has its own scale."""
SCALE_STEP = 0.025
"""How far the scales beside the best of SCALES are from it."""
MAX_SHIFT = 8
"""Pixels that a copy may be moved."""
WORTH_A_SEARCH = 0.3
"""Below this correlation as they are, two pictures are not laid over each other: no copy that is
cropped so little is as far."""
WORTH_IF_FLAT = 0.85
"""The same for a drawing, or a thing before an even background. Many drawings are alike as they
are, so of these only crops of about 2 percent are found."""
FLAT = 0.5
"""A picture is flat if this share of its pixels has one gray value, or nearly that."""
NEARLY = 2
"""Gray values that are nearly the same differ by at most this."""
WORTH_ALL_SCALES = 0.75
"""Below this correlation with one scale for both directions, no others are tried."""
WORTH_FINER_SCALES = 0.85
"""Below this correlation with SCALES, no scales between them are tried."""
PADDED = 80
"""Pixels of a side of what is correlated: a thumbnail, and the room to move it."""
NO_ENERGY = 1e-3
_SHIFTS = np.arange(-MAX_SHIFT, MAX_SHIFT + 1)


class Match(NamedTuple):
    """How well the details of two pictures agree, each from -1 to 1."""

    middle: float
    fine: float
    least_fine: float = LEAST_FINE

    @property
    def is_same(self) -> bool:
        return self.middle >= LEAST_MIDDLE and self.fine >= self.least_fine


NO_MATCH = Match(-1.0, -1.0)


def middle_details(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The middle details of thumbnails (..., height, width)."""
    values = thumbnails.astype(np.float32)
    low, high = (_blur(values, deviation) for deviation in MIDDLE)
    return low - high


def fine_details(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The fine details of thumbnails (..., height, width)."""
    values = thumbnails.astype(np.float32)
    return values - _blur(values, FINE)


def _blur(values: NDArray[np.float32], deviation: float) -> NDArray[np.float32]:
    deviations = (0,) * (values.ndim - 2) + (deviation, deviation)
    return np.asarray(gaussian_filter(values, deviations, mode="nearest", truncate=3.0))


def content(details: NDArray[np.float32]) -> float:
    """The share of the pixels that hold the details (SIDE, SIDE) of a picture.

    It is 1 if all pixels hold as much, and 1/n if one of n pixels holds everything (the
    participation ratio of the energies).
    """
    energy = details.astype(np.float64) ** 2
    total = energy.sum()
    return float(total**2 / (energy**2).sum() / energy.size) if total > NO_ENERGY else 0.0


def is_flat(pixels: NDArray[np.uint8]) -> bool:
    """Whether a thumbnail has an even background, as drawings have."""
    values = np.bincount(pixels.ravel(), minlength=256)
    mode = int(values.argmax())
    near = values[max(0, mode - NEARLY) : mode + NEARLY + 1].sum()
    return bool(near >= FLAT * pixels.size)


def match(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Match:
    """Lay `first` over `second`, both thumbnails (SIDE, SIDE), so that they agree best.

    Simple pictures are not moved: what else would agree with a line?
    """
    details, others = middle_details(first), middle_details(second)
    in_place = _correlation(details, others)
    if min(content(details), content(others)) < SIMPLE_CONTENT:
        fine = _correlation(fine_details(first), fine_details(second))
        is_copy = min(in_place, fine) >= LEAST_OF_SIMPLE
        return Match(in_place, fine) if is_copy else NO_MATCH
    flat = is_flat(first) or is_flat(second)
    if in_place < (WORTH_IF_FLAT if flat else WORTH_A_SEARCH):
        return NO_MATCH
    middle, _ = _best_scales(details, others, ((scale, scale) for scale in SCALES))
    if middle < WORTH_ALL_SCALES:
        return Match(middle, -1.0)
    middle, (wide, high) = _best_scales(details, others, product(SCALES, SCALES))
    if middle < WORTH_FINER_SCALES:
        return Match(middle, -1.0)
    near = (-SCALE_STEP, 0.0, SCALE_STEP)
    finer = ((wide + step, high + other_step) for step in near for other_step in near)
    middle, scales = _best_scales(details, others, finer)
    if middle < LEAST_MIDDLE:
        return Match(middle, -1.0)
    scaled = fine_details(_resize(first, scales))
    fine = _best_correlation(scaled, fine_details(second))
    return Match(middle, fine, LEAST_FINE_IF_FLAT if flat else LEAST_FINE)


def _best_scales(
    details: NDArray[np.float32],
    others: NDArray[np.float32],
    all_scales: Iterable[tuple[float, float]],
) -> tuple[float, tuple[float, float]]:
    """The highest correlation, and the scales (wide, high) of `details` that give it."""
    spectrum = rfft2(others, (PADDED, PADDED))
    return max(
        (_best_correlation(_resize(details, scales), others, spectrum), scales)
        for scales in all_scales
    )


def _resize(picture: NDArray[Any], scales: tuple[float, float]) -> NDArray[Any]:
    """A picture of bytes or of floats, scaled in width and height."""
    wide, high = (round(SIDE * scale) for scale in scales)
    return np.asarray(Image.fromarray(picture).resize((wide, high), Image.Resampling.BICUBIC))


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """The correlation of details of one size, not moved."""
    lengths = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    return float(np.vdot(first, second)) / max(lengths, NO_ENERGY)


def _best_correlation(
    details: NDArray[np.float32],
    others: NDArray[np.float32],
    spectrum: NDArray[np.complexfloating] | None = None,
) -> float:
    """The highest correlation of details with `others` (SIDE, SIDE), wherever they are laid, of
    the part where both overlap.

    The middle of `details` is up to MAX_SHIFT pixels from that of `others`. Details have the mean
    0, so no mean is taken away.
    """
    if spectrum is None:
        spectrum = rfft2(others, (PADDED, PADDED))
    padded = (PADDED, PADDED)
    products = irfft2(np.conj(rfft2(details, padded)) * spectrum, padded)
    starts = [(SIDE - size) // 2 + _SHIFTS for size in details.shape]
    on_others = [_overlaps(start, size) for start, size in zip(starts, details.shape, strict=True)]
    on_details = [
        (first - start, last - start)
        for start, (first, last) in zip(starts, on_others, strict=True)
    ]
    energies = _box_sums(details**2, *on_details) * _box_sums(others**2, *on_others)
    down, right = (start % PADDED for start in starts)
    correlations = products[np.ix_(down, right)] / np.sqrt(np.maximum(energies, NO_ENERGY))
    return float(correlations.max())


def _overlaps(starts: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first pixel of SIDE that `size` pixels cover if they begin at each of `starts`, and the
    one after the last."""
    return np.maximum(starts, 0), np.minimum(starts + size, SIDE)


def _box_sums(
    values: NDArray[np.float32],
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    columns: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> NDArray[np.float64]:
    """The sums of `values` in boxes: (first and last rows) x (first and last columns)."""
    sums = np.zeros([size + 1 for size in values.shape])
    values.cumsum(0, np.float64).cumsum(1, out=sums[1:, 1:])
    (top, bottom), (left, right) = rows, columns
    return (
        sums[np.ix_(bottom, right)]
        - sums[np.ix_(top, right)]
        - sums[np.ix_(bottom, left)]
        + sums[np.ix_(top, left)]
    )
