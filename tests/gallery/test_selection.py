"""Galleries show the worst errors, of many classes, and the classes that are confused most."""

from collections import Counter

import numpy as np
import pytest

from dmlbench.gallery.neighbours import find_neighbours
from dmlbench.gallery.ranked_images import RankedImages
from dmlbench.gallery.selection import (
    closest_successes,
    confusions,
    hardest_failures,
    is_right,
)


@pytest.fixture
def case():
    """60 images of 6 classes of which two are mixed up."""
    generator = np.random.default_rng(3)
    labels = np.repeat(np.arange(6), 10)
    means = 3 * np.eye(6, 8)
    means[1] = means[0] + 0.3
    vectors = (means[labels] + generator.normal(size=(60, 8))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = np.arange(60)
    images = RankedImages(None, rows, labels, [*"abcdef"], {}, rows, rows)
    return images, find_neighbours(vectors, labels, rows, rows, 3)


def test_failures_are_wrong_and_their_worst_come_first(case):
    images, found = case
    shown = hardest_failures(images, found, 5)
    assert not is_right(images, found)[shown].any()
    assert found.margins[shown[0]] == found.margins.min()
    classes = images.labels[shown]
    assert len(set(classes)) == len(classes)  # as at least five classes have failures


def test_successes_are_right_and_the_narrowest_come_first(case):
    images, found = case
    shown = closest_successes(images, found, 4)
    right = is_right(images, found)
    assert right[shown].all()
    assert found.margins[shown[0]] == found.margins[right].min()
    assert [*found.margins[shown]] == sorted(found.margins[shown])


def test_a_class_has_a_second_example_when_each_has_one(case):
    images, found = case
    everything = hardest_failures(images, found, 100)
    wrong = np.flatnonzero(~is_right(images, found))
    assert sorted(everything) == [*wrong]
    counts = Counter(images.labels[wrong].tolist())
    first_round = images.labels[everything[: len(counts)]].tolist()
    assert sorted(first_round) == sorted(counts)


def test_without_an_error_nothing_is_confused(case):
    images, _ = case
    perfect = np.eye(6, dtype=np.float32)[images.labels]
    found = find_neighbours(perfect, images.labels, images.queries, images.gallery, 3)
    assert confusions(images, found, 9) == []
    assert hardest_failures(images, found, 9) == []


def test_confusions_count_the_pairs_of_classes(case):
    images, found = case
    counts = Counter(
        (int(label), int(images.labels[nearest]))
        for label, nearest in zip(images.labels, found.nearest[:, 0], strict=True)
        if label != images.labels[nearest]
    )
    pairs = confusions(images, found, 100)
    assert {(pair.label, pair.taken_for): pair.times for pair in pairs} == counts
    assert [pair.times for pair in pairs] == sorted(counts.values(), reverse=True)
    assert {pair.queries for pair in pairs} == {10}
    for pair in pairs:
        assert images.labels[pair.query] == pair.label
        assert found.nearest[pair.query, 0] == pair.nearest
    assert {(pairs[0].label, pairs[0].taken_for), (pairs[1].label, pairs[1].taken_for)} == {
        (0, 1),
        (1, 0),
    }
