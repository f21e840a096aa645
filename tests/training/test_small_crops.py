"""Crops of small images of one size have the same bits as torch's call for each image."""

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from dmlbench.study.settings import Augmentation
from dmlbench.training import batches
from dmlbench.training.small_crops import axes, small_crops


def resampled(image, box, side):
    top, left, height, width = box
    part = image[None, :, top : top + height, left : left + width]
    return functional.interpolate(part, (side, side), mode="bilinear", antialias=True)[0]


@given(
    st.integers(2, 48), st.integers(2, 48), st.integers(1, 48), st.sampled_from([1, 3]), st.data()
)
@settings(max_examples=80, deadline=None)
def test_every_box_of_every_small_size_is_resampled_to_torch_s_bytes(
    height, width, side, channels, data
):
    weights = axes(channels, height, width, side)
    assume(weights)
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    images = random.integers(0, 256, (12, channels, height, width), np.uint8)
    images[:2] = [[[[0]]], [[[255]]]]  # the ends of the range
    sizes = np.full((12, 2), (height, width))
    boxes, _ = batches.draw(sizes, Augmentation(crop_scale=(0.02, 1)), random)
    images = torch.from_numpy(images)
    crops = small_crops(images, torch.from_numpy(boxes), *weights)
    assert (crops.dtype, crops.shape) == (torch.uint8, (12, channels, side, side))
    for crop, image, box in zip(crops, images, boxes.tolist(), strict=True):
        assert torch.equal(crop, resampled(image, box, side))


def test_a_packed_store_of_small_images_is_cropped_as_its_single_images_are(glyphs):
    random = np.random.default_rng(0)
    assert glyphs.shape == (1, 32, 32)
    assert axes(1, 32, 32, 24)
    rows = random.permutation(len(glyphs))[:200]
    boxes, _ = batches.draw(glyphs.sizes[rows], Augmentation(), random)
    singly = batches.crops([*map(glyphs.__getitem__, rows)], np.arange(200), boxes, 24)
    assert torch.equal(batches.crops(glyphs, rows, boxes, 24), singly)
    central = batches.central_boxes(glyphs.sizes[rows], 32)
    expected = torch.from_numpy(np.stack([glyphs[row] for row in rows]))
    assert torch.equal(batches.crops(glyphs, rows, central, 32), expected)


def test_sums_that_float32_cannot_hold_and_large_images_take_a_call_for_each():
    assert axes(1, 48, 48, 3) is None  # the weights of 16 pixels have more than 16 bits
    assert axes(1, 48, 48, 48)
    assert axes(3, 48, 48, 48) is None
    assert axes(1, 32, 32, 64) is None
