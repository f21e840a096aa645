"""Batches depend only on (seed, epoch); crops have torchvision's distribution and pixels."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2.functional import center_crop, resized_crop

from dmlbench.datasets.store.part import Part
from dmlbench.study.settings import Augmentation, Recipe
from dmlbench.study.study import check_study
from dmlbench.training import batches
from dmlbench.training.train import train

from .stops import never


@st.composite
def labelled(draw):
    counts = draw(st.lists(st.integers(1, 9), min_size=2, max_size=12))
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(draw(st.integers(0, 9))).permutation(labels)


SAMPLERS = ("rounds", "per_batch")


@pytest.mark.parametrize("sampler", SAMPLERS)
@given(labelled(), st.integers(1, 5), st.integers(1, 5), st.integers(1, 6), st.data())
@settings(max_examples=80, deadline=None)
def test_a_balanced_batch_has_p_different_classes_with_k_images_each(
    sampler, labels, k, steps, seed, data
):
    classes = data.draw(st.integers(1, labels.max() + 1))
    rows = batches.sample(labels, steps, classes * k, k, seed, 0, sampler)
    assert rows.shape == (steps, classes * k)
    for batch in rows:
        drawn, counts = np.unique(labels[batch], return_counts=True)
        assert len(drawn) == classes
        assert set(counts) == {k}
        for label in drawn:
            images = batch[labels[batch] == label]
            assert len(set(images)) == min(k, np.sum(labels == label)) or len(images) > np.sum(
                labels == label
            )


@given(labelled(), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_classes_are_drawn_in_rounds(labels, seed):
    classes = labels.max() + 1
    per_batch = max(1, classes // 2)
    rows = batches.sample(
        labels, steps=20, batch_size=per_batch, images_per_class=1, seed=seed, epoch=1
    )
    seen = np.bincount(labels[rows.ravel()], minlength=classes)
    assert seen.max() - seen.min() <= 2


def test_the_default_is_rounds_with_the_bits_of_version_0_1():
    labels = np.repeat(np.arange(5), 3)
    expected = [[9, 11, 0, 1], [8, 7, 5, 3], [13, 14, 0, 2]]
    assert batches.sample(labels, 3, 4, 2, seed=7, epoch=1).tolist() == expected
    assert batches.sample(labels, 3, 4, 2, 7, 1, "rounds").tolist() == expected
    assert Recipe().sampler == "rounds"


@given(st.integers(2, 12), st.integers(0, 2**31), st.data())
@settings(max_examples=20, deadline=None)
def test_classes_drawn_per_batch_are_independent_of_the_batch_before(classes, seed, data):
    """Each batch is a uniform draw without replacement: its counts are hypergeometric."""
    per_batch = data.draw(st.integers(1, classes - 1))
    steps = 400
    labels = np.arange(classes)
    rows = batches.sample(labels, steps, per_batch, 1, seed, 0, "per_batch")
    held = np.zeros((steps, classes))
    np.put_along_axis(held, rows, 1, axis=1)
    share = per_batch / classes
    error = np.sqrt(share * (1 - share) / steps)
    assert np.abs(held.mean(axis=0) - share).max() < 6 * error  # a class, of all batches
    again = (held[1:] * held[:-1]).sum(axis=1)  # classes that the batch before had too
    variance = per_batch * share * (1 - share) * (classes - per_batch) / max(classes - 1, 1)
    assert abs(again.mean() - per_batch * share) <= 6 * np.sqrt(variance / (steps - 1))


def test_counts_of_classes_spread_by_chance_per_batch_and_not_in_rounds():
    """Variance of a class's count over an epoch: steps x share x (1 - share), or hardly any."""
    labels, steps, share = np.repeat(np.arange(20), 4), 50, 8 / 20
    spread = {}
    for sampler in SAMPLERS:
        rows = [batches.sample(labels, steps, 16, 2, seed, 0, sampler) for seed in range(40)]
        counts = [np.bincount(labels[r[:, ::2]].ravel(), minlength=20) for r in rows]
        spread[sampler] = np.var(counts)
    assert spread["rounds"] < 1
    assert spread["per_batch"] == pytest.approx(steps * share * (1 - share), rel=0.15)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_training_draws_by_the_sampler_of_its_recipe(
    sampler, tiny, glyphs, tmp_path, monkeypatch
):
    drawn = []

    def sample(*arguments):
        drawn.append(real(*arguments))
        return drawn[-1]

    real = batches.sample
    monkeypatch.setattr(batches, "sample", sample)
    tiny["plan"]["losses"] = ["proxy_anchor"]
    tiny["recipe"] |= {"epochs": 2, "sampler": sampler}
    run = check_study(tiny, "tiny").runs["letters/tiny/proxy_anchor/seed0"]
    split = glyphs.split("train", Part(0.1))
    train(run, glyphs, split, torch.device("cpu"), tmp_path, never)
    sizes = run.recipe.batch_size, run.recipe.images_per_class
    assert len(drawn) == 2
    for epoch, rows in enumerate(drawn):
        expected = real(split.labels, len(rows), *sizes, run.seed, epoch, sampler)
        assert np.array_equal(rows, expected)


def test_a_shuffled_epoch_has_each_image_at_most_once():
    labels = np.zeros(103, dtype=int)
    rows = batches.sample(labels, 10, 10, None, seed=0, epoch=0)
    assert len(np.unique(rows)) == 100


@pytest.mark.parametrize(("k", "sampler"), [(None, "rounds"), (4, "rounds"), (4, "per_batch")])
def test_draws_depend_only_on_seed_and_epoch(k, sampler):
    labels = np.repeat(np.arange(20), 10)
    draw = lambda seed, epoch: batches.sample(labels, 5, 40, k, seed, epoch, sampler)  # noqa: E731
    assert np.array_equal(draw(1, 2), draw(1, 2))
    assert not np.array_equal(draw(1, 2), draw(1, 3))
    assert not np.array_equal(draw(1, 2), draw(2, 2))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_too_few_classes_for_a_batch_are_an_error(sampler):
    with pytest.raises(ValueError, match=r"batch_size: 40 / images_per_class 4 = 10 classes"):
        batches.sample(np.repeat(np.arange(5), 10), 1, 40, 4, 0, 0, sampler)


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0.01, 1), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_crops_are_inside_their_image(height, width, least, seed):
    sizes = np.tile([height, width], (20, 1))
    boxes = batches.random_boxes(sizes, (least, 1), (0.75, 4 / 3), np.random.default_rng(seed))
    top, left, h, w = boxes.T
    assert np.all((h >= 1) & (w >= 1) & (top >= 0) & (left >= 0))
    assert np.all((top + h <= height) & (left + w <= width))
    assert np.array_equal(boxes, np.round(boxes))


def test_crops_have_the_distribution_of_torchvision_s():
    scale, ratio, size, n = (0.16, 1.0), (0.75, 4 / 3), (120, 180), 20000
    torch.manual_seed(0)
    image = torch.zeros(1, *size)
    reference = np.array(
        [RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(n)]
    )
    ours = batches.random_boxes(np.tile(size, (n, 1)), scale, ratio, np.random.default_rng(0))
    from scipy.stats import ks_2samp

    for column, name in enumerate(["top", "left", "height", "width"]):
        assert ks_2samp(ours[:, column], reference[:, column]).pvalue > 1e-3, name


def test_an_image_too_long_for_any_crop_gets_the_central_crop_of_torchvision():
    sizes = np.array([[20, 400], [400, 20]])
    boxes = batches.random_boxes(sizes, (1, 1), (0.75, 4 / 3), np.random.default_rng(0))
    torch.manual_seed(0)
    for box, size in zip(boxes, sizes, strict=True):
        params = RandomResizedCrop.get_params(torch.zeros(1, *size), [1, 1], [0.75, 4 / 3])
        assert tuple(box) == params


@given(
    st.lists(st.tuples(st.integers(20, 90), st.integers(20, 90)), min_size=1, max_size=12),
    st.sampled_from([1, 3]),
    st.integers(2, 70),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_crops_have_the_bytes_of_torchvision_s_resized_crop(sizes, channels, side, seed):
    random = np.random.default_rng(seed)
    images = [random.integers(0, 256, (channels, *size), np.uint8) for size in sizes]
    rows = random.integers(0, len(images), 15)
    boxes, _ = batches.draw(np.array(sizes)[rows], Augmentation(crop_scale=(0.05, 1)), random)
    ours = batches.crops(images, rows, boxes, side)
    assert ours.shape == (15, channels, side, side)
    for crop, row, box in zip(ours, rows, boxes.tolist(), strict=True):
        reference = resized_crop(torch.from_numpy(images[row]), *box, [side, side], antialias=True)
        assert torch.equal(crop, reference)


@given(
    st.integers(5, 40), st.tuples(st.integers(0, 30), st.integers(0, 30)), st.sampled_from([1, 3])
)
@settings(max_examples=60, deadline=None)
def test_the_test_transform_is_the_central_crop(side, more, channels):
    size = side + more[0], side + more[1]
    image = np.random.default_rng(0).integers(0, 256, (channels, *size), np.uint8)
    boxes = batches.central_boxes(np.array([size]), side)
    ours = batches.crops([image], np.array([0]), boxes, side)
    assert torch.equal(ours[0], center_crop(torch.from_numpy(image), [side, side]))


def test_crops_do_not_depend_on_the_number_of_threads(glyphs):
    random = np.random.default_rng(0)
    rows = random.permutation(len(glyphs))[:101]
    boxes, _ = batches.draw(glyphs.sizes[rows], Augmentation(), random)
    expected = batches.crops(glyphs, rows, boxes, 24)
    for threads in (1, 3, 20):
        with ThreadPoolExecutor(threads) as pool:
            assert torch.equal(batches.crops(glyphs, rows, boxes, 24, pool.map), expected)


def test_an_unreadable_image_is_an_error_of_the_batch():
    class Damaged(Exception):
        pass

    class Images:
        def __getitem__(self, row):
            if row == 7:
                raise Damaged
            return np.zeros((1, 9, 9), np.uint8)

    boxes = np.tile([0, 0, 9, 9], (12, 1))
    with ThreadPoolExecutor(2) as pool:
        for map_function in (map, pool.map):
            with pytest.raises(Damaged):
                batches.crops(Images(), np.arange(12), boxes, 4, map_function)


def test_half_of_the_images_are_mirrored_and_none_if_flip_is_off():
    sizes, random = np.full((4000, 2), 8), np.random.default_rng(0)
    _, drawn = batches.draw(sizes, Augmentation(), random)
    assert abs(drawn["mirrored"].double().mean() - 0.5) < 0.03
    _, drawn = batches.draw(sizes, Augmentation(flip=False), random)
    assert not drawn


def test_only_chosen_images_are_mirrored_left_to_right():
    squares = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    plain = batches.floats(squares)
    assert torch.equal(plain, squares.float() / 255)
    mirrored = batches.floats(squares, torch.tensor([False, True, False]))
    assert torch.equal(mirrored[1], plain[1].flip(-1))
    assert torch.equal(mirrored[::2], plain[::2])
