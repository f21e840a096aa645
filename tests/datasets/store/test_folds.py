"""Folds of the training classes: disjoint, whole, even, and always the same."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlbench.datasets.store.folds import cut_folds, draw_folds, hold_out, published_fold
from dmlbench.datasets.store.reader import Split


@st.composite
def splits(draw, least=4):
    """A split of up to 40 classes with 1 to 4 images each, and 0 to 2 levels of super-classes."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=least, max_size=40))
    classes = len(sizes)
    labels = draw(st.permutations(np.repeat(np.arange(classes), sizes).tolist()))
    levels = draw(st.integers(0, 2))
    parents = None
    if levels:
        nearest = draw(st.lists(st.integers(0, 5), min_size=classes, max_size=classes))
        nearest = np.unique(nearest, return_inverse=True)[1]
        parents = np.stack([nearest, nearest // 2][:levels])
    rows = np.sort(draw(st.permutations(range(200)))[: len(labels)])
    names = [f"class {number:02d}" for number in range(classes)]
    return Split(rows, np.array(labels), names, parents)


@st.composite
def foldings(draw):
    """A split, the number of its folds, and the folds, drawn or cut."""
    split = draw(splits())
    folds = draw(st.integers(2, len(split.class_names) // 2))
    seed = draw(st.integers(0, 99))
    is_drawn = draw(st.booleans())
    return split, folds, draw_folds(split, folds, seed) if is_drawn else cut_folds(split, folds)


@settings(max_examples=40)
@given(foldings())
def test_every_class_is_held_out_in_exactly_one_fold_and_no_class_is_on_both_sides(folding):
    split, folds, held_out = folding
    classes = range(len(split.class_names))
    assert len(held_out) == folds
    assert sorted(np.concatenate(held_out).tolist()) == [*classes]
    sizes = [len(fold) for fold in held_out]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2
    for fold in held_out:
        train, validation = hold_out(split, fold)
        assert {*train.class_names} | {*validation.class_names} == {*split.class_names}
        assert not {*train.class_names} & {*validation.class_names}
        assert sorted([*train.rows, *validation.rows]) == split.rows.tolist()


@settings(max_examples=40)
@given(foldings())
def test_both_sides_of_a_fold_are_splits_as_the_store_gives_them(folding):
    split, _, held_out = folding
    name_of = {
        row: split.class_names[label] for row, label in zip(split.rows, split.labels, strict=True)
    }
    for part in hold_out(split, held_out[0]):
        assert np.array_equal(part.rows, np.sort(part.rows))
        assert np.array_equal(np.unique(part.labels), np.arange(len(part.class_names)))
        assert part.class_names == sorted(part.class_names)
        for row, label in zip(part.rows, part.labels, strict=True):
            assert part.class_names[label] == name_of[row]
        if split.parents is None:
            assert part.parents is None
            continue
        places = [split.class_names.index(name) for name in part.class_names]
        for level, whole in zip(part.parents, split.parents, strict=True):
            assert np.array_equal(np.unique(level), np.arange(level.max() + 1))
            same = whole[places][:, None] == whole[places][None]
            assert np.array_equal(level[:, None] == level[None], same)


@settings(max_examples=40)
@given(splits(), st.data())
def test_each_super_class_is_spread_evenly_over_drawn_folds(split, data):
    folds = data.draw(st.integers(2, len(split.class_names) // 2))
    held_out = draw_folds(split, folds, seed=0)
    parents = np.zeros(len(split.class_names)) if split.parents is None else split.parents[0]
    for parent, count in Counter(parents.tolist()).items():
        shares = [int((parents[fold] == parent).sum()) for fold in held_out]
        assert max(shares) - min(shares) <= 1
        if count >= folds:
            assert min(shares) >= 1


def split_of(classes, parents=None):
    names = [f"class {number:03d}" for number in range(classes)]
    return Split(np.arange(classes), np.arange(classes), names, parents)


def test_cut_folds_are_the_blocks_of_the_reality_check():
    """Musgrave et al.: the first 100 classes of CUB in four blocks, 0-24, 25-49 and so on."""
    blocks = cut_folds(split_of(100), 4)
    assert [(fold[0], fold[-1], len(fold)) for fold in blocks] == [
        (0, 24, 25),
        (25, 49, 25),
        (50, 74, 25),
        (75, 99, 25),
    ]
    assert [len(fold) for fold in cut_folds(split_of(98), 4)] == [25, 25, 24, 24]


def test_drawn_folds_depend_on_the_seed_and_on_nothing_else():
    parents = np.array([[0] * 5 + [1] * 7])
    split = split_of(12, parents)
    folds = [fold.tolist() for fold in draw_folds(split, 3, seed=0)]
    # written by this function once: another version of a library must give the same
    assert folds == [[2, 3, 8, 9], [0, 1, 5, 11], [4, 6, 7, 10]]
    assert [fold.tolist() for fold in draw_folds(split, 3, seed=1)] != folds


@pytest.mark.parametrize("make", [cut_folds, lambda split, folds: draw_folds(split, folds, 0)])
def test_a_fold_needs_two_classes(make):
    assert len(make(split_of(8), 4)) == 4
    with pytest.raises(
        ValueError,
        match=r"4 folds of 7 training classes: each needs 2 classes or more\. Take 3 folds or few",
    ):
        make(split_of(7), 4)
    with pytest.raises(ValueError, match="It cannot be cut into folds"):
        make(split_of(3), 2)


def test_the_published_part_is_a_fold_of_whole_classes():
    split = Split(np.arange(8), np.repeat(np.arange(4), 2), list("abcd"), None)
    is_held_out = np.isin(split.labels, [1, 3])
    assert published_fold(split, is_held_out).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "it has no validation part"),
        ([0, 2, 3], "class a is in both train and validation"),
        ([0, 1], "its part validation has fewer than 2 classes"),
        ([0, 1, 2, 3, 4, 5], "its part train has fewer than 2 classes"),
    ],
)
def test_a_published_part_that_cannot_validate_is_refused(rows, message):
    split = Split(np.arange(8), np.repeat(np.arange(4), 2), list("abcd"), None)
    with pytest.raises(ValueError, match=message):
        published_fold(split, np.isin(split.rows, rows))
