"""Batches are drawn by (seed, epoch) alone; crops follow torchvision's distribution and pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import center_crop, resized_crop

from dmlbench.settings import Augmentation
from dmlbench.training import batches


@st.composite
def labelled(draw):
    counts = draw(st.lists(st.integers(1, 9), min_size=2, max_size=12))
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(draw(st.integers(0, 9))).permutation(labels)


@given(labelled(), st.integers(1, 5), st.integers(1, 5), st.integers(1, 6), st.data())
@settings(max_examples=80, deadline=None)
def test_a_balanced_batch_has_p_different_classes_with_k_images_each(labels, k, steps, seed, data):
    classes = data.draw(st.integers(1, labels.max() + 1))
    rows = batches.sample(labels, steps, classes * k, k, seed, epoch=0)
    assert rows.shape == (steps, classes * k)
    for batch in rows:
        found, counts = np.unique(labels[batch], return_counts=True)
        assert len(found) == classes
        assert set(counts) == {k}
        for label in found:
            images = batch[labels[batch] == label]
            assert len(set(images)) == min(k, np.sum(labels == label)) or len(images) > np.sum(
                labels == label
            )


@given(labelled(), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_classes_come_in_rounds(labels, seed):
    classes = labels.max() + 1
    per_batch = max(1, classes // 2)
    rows = batches.sample(
        labels, steps=20, batch_size=per_batch, images_per_class=1, seed=seed, epoch=1
    )
    seen = np.bincount(labels[rows.ravel()], minlength=classes)
    assert seen.max() - seen.min() <= 2


def test_a_shuffled_epoch_shows_an_image_once():
    labels = np.zeros(103, dtype=int)
    rows = batches.sample(labels, 10, 10, None, seed=0, epoch=0)
    assert len(np.unique(rows)) == 100


@pytest.mark.parametrize("k", [None, 4])
def test_draws_depend_on_seed_and_epoch_alone(k):
    labels = np.repeat(np.arange(20), 10)
    draw = lambda seed, epoch: batches.sample(labels, 5, 40, k, seed, epoch)  # noqa: E731
    assert np.array_equal(draw(1, 2), draw(1, 2))
    assert not np.array_equal(draw(1, 2), draw(1, 3))
    assert not np.array_equal(draw(1, 2), draw(2, 2))


def test_too_few_classes_for_a_batch_is_an_error_that_says_so():
    with pytest.raises(ValueError, match=r"batch_size: 40 / images_per_class 4 = 10 classes"):
        batches.sample(np.repeat(np.arange(5), 10), 1, 40, 4, 0, 0)


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0.01, 1), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_crops_lie_inside_their_image(height, width, least, seed):
    sizes = np.tile([height, width], (20, 1))
    boxes = batches.random_boxes(sizes, (least, 1), (0.75, 4 / 3), np.random.default_rng(seed))
    top, left, h, w = boxes.T
    assert np.all((h >= 1) & (w >= 1) & (top >= 0) & (left >= 0))
    assert np.all((top + h <= height) & (left + w <= width))
    assert np.array_equal(boxes, np.round(boxes))


def test_crops_are_distributed_as_torchvision_s():
    scale, ratio, size, n = (0.16, 1.0), (0.75, 4 / 3), (120, 180), 20000
    torch.manual_seed(0)
    image = torch.zeros(1, *size)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(n)]
    )
    ours = batches.random_boxes(np.tile(size, (n, 1)), scale, ratio, np.random.default_rng(0))
    from scipy.stats import ks_2samp

    for column, name in enumerate(["top", "left", "height", "width"]):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3, name


def test_an_image_too_long_for_any_crop_falls_back_to_the_centre_as_torchvision_s():
    sizes = np.array([[20, 400], [400, 20]])
    boxes = batches.random_boxes(sizes, (1, 1), (0.75, 4 / 3), np.random.default_rng(0))
    torch.manual_seed(0)
    for box, size in zip(boxes, sizes, strict=True):
        params = RandomResizedCrop.get_params(torch.zeros(1, *size), [1, 1], [0.75, 4 / 3])
        assert tuple(box) == params


def test_a_crop_has_the_pixels_of_torchvision_s_bilinear_resize():
    image = torch.randint(0, 256, (1, 3, 40, 50), dtype=torch.uint8)
    box = (3, 7, 21, 30)
    ours = batches.crop(image, np.array([[40, 50]]), np.array([box], float), np.array([False]), 32)
    theirs = resized_crop(image.float() / 255, *box, [32, 32], antialias=False)
    # at the border of a crop ours sees its image's next pixel, theirs repeats the last
    assert torch.allclose(ours[..., 1:-1, 1:-1], theirs[..., 1:-1, 1:-1], atol=1e-5)


def test_a_flip_mirrors_left_and_right_only():
    image = torch.randint(0, 256, (1, 1, 16, 16), dtype=torch.uint8)
    box = np.array([[0, 0, 16, 16]], float)
    size = np.array([[16, 16]])
    plain = batches.crop(image, size, box, np.array([False]), 16)
    mirrored = batches.crop(image, size, box, np.array([True]), 16)
    assert torch.allclose(mirrored, plain.flip(-1), atol=1e-6)
    assert torch.allclose(plain * 255, image.float(), atol=1e-3)


@pytest.mark.parametrize("size", [(32, 32), (33, 40), (47, 32)])
def test_the_test_transform_is_the_centre_crop(size):
    image = torch.randint(0, 256, (1, 1, *size), dtype=torch.uint8)
    ours = batches.centre(image, np.array([size]), 32)
    assert torch.allclose(ours * 255, center_crop(image, [32, 32]).float(), atol=1e-3)


def test_the_padding_of_a_batch_is_never_seen():
    images = torch.full((2, 1, 40, 60), 0, dtype=torch.uint8)
    images[0, :, :20, :30] = 200
    images[1] = 200
    sizes = np.array([[20, 30], [40, 60]])
    random = np.random.default_rng(0)
    for _ in range(20):
        out = batches.augment(images, sizes, 16, Augmentation(crop_scale=(0.1, 1)), random)
        assert torch.allclose(out * 255, torch.tensor(200.0), atol=1e-3)
