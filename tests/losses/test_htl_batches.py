"""HTL's anchor-neighbour batches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(2, 9),
    short=st.booleans(),
    built=st.booleans(),
    shape=st.sampled_from([(2, 2), (3, 1), (1, 3), (2, 1)]),
)
def test_a_batch_holds_anchors_and_their_nearest_classes(
    create_htl, brute_force_distances, seed, classes, short, built, shape
):
    neighbours, per_class = shape
    anchors = max(1, classes // neighbours)
    if anchors * neighbours > classes:
        return
    random = np.random.default_rng(seed)
    sizes = random.integers(1 if short else per_class, 5, classes)
    labels = random.permutation(np.repeat(np.arange(classes), sizes))
    x = functional.normalize(torch.from_numpy(random.normal(size=(len(labels), 3))))
    loss = create_htl(classes, 3, neighbours=neighbours, images_per_class=per_class)
    if built:
        loss.refresh(lambda: (x, torch.from_numpy(labels)))
    size = anchors * neighbours * per_class
    rows = loss.batches(labels, 5, size, seed=1, epoch=2)
    assert rows.shape == (5, size)
    assert rows.dtype == np.int64
    between = brute_force_distances(x, torch.from_numpy(labels)).numpy()
    for batch in rows.reshape(5, anchors, neighbours, per_class):
        drawn = labels[batch]
        assert (drawn == drawn[..., :1]).all()
        assert len(np.unique(drawn)) == anchors * neighbours
        for images in batch.reshape(-1, per_class):
            enough = (labels == labels[images[0]]).sum() >= per_class
            assert len(set(images)) == per_class or not enough
        taken = set(drawn[:, 0, 0])
        for anchor, *partners in drawn[:, :, 0] if built else ():
            free = [c for c in between[anchor].argsort() if c not in taken and c != anchor]
            assert partners == free[: neighbours - 1]
            taken |= set(partners)


def test_batches_follow_from_seed_and_epoch(create_htl):
    labels = np.arange(12).repeat(4)
    loss = create_htl(12, 3)
    rows = loss.batches(labels, 3, 16, 0, 0)
    np.testing.assert_array_equal(rows, loss.batches(labels, 3, 16, 0, 0))
    assert (rows != loss.batches(labels, 3, 16, 0, 1)).any()
    assert (rows != loss.batches(labels, 3, 16, 1, 0)).any()


def test_all_classes_are_anchors_equally_often(create_htl, draw_classes):
    labels = np.arange(6).repeat(2)
    loss = create_htl(6, 3, neighbours=2, images_per_class=1)
    loss.refresh(lambda: (draw_classes(0, 6, 2)[0], torch.from_numpy(labels)))
    anchors = labels[loss.batches(labels, 3000, 2, 0, 0)[:, 0]]
    np.testing.assert_allclose(np.bincount(anchors) / 3000, 1 / 6, atol=0.03)


@pytest.mark.parametrize(
    ("size", "message"),
    [(24, "24 is not a multiple of neighbours 4 x images_per_class 4"), (64, "16 classes.* are 5")],
)
def test_a_batch_size_that_does_not_fit_is_refused(create_htl, size, message):
    with pytest.raises(ValueError, match=message):
        create_htl(5).batches(np.arange(5).repeat(9), 1, size, 0, 0)
