"""A holdout changes only the distance between the training classes and the test classes."""

from collections import Counter
from fractions import Fraction
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dmlbench.datasets import Row
from dmlbench.datasets.store.part import RUNGS, WHOLE, Part, UnusableHoldout, hold_out
from dmlbench.datasets.store.reader import Store

from .made_images import solid


@st.composite
def taxonomies(draw, depth=None):
    """Names of classes, and the super-classes of each: a list for each level, the nearest first."""
    depth = depth or draw(st.integers(1, 3))
    tree = st.integers(1, 9)
    for _ in range(depth):
        tree = st.lists(tree, min_size=1, max_size=5)
    paths, number = [], 0

    def walk(node, path):
        nonlocal number
        if isinstance(node, int):
            for _ in range(node):
                paths.append((f"class {number}", path))
                number += 1
            return
        for place, child in enumerate(node):
            # one name may be in several groups of the level above
            walk(child, (*path, f"{'xyz'[len(path)]}{place}"))

    walk(draw(tree), ())
    names = [name for name, _ in paths]
    return names, [[path[-1 - level] for _, path in paths] for level in range(depth)]


fractions = st.sampled_from([0.2, 0.5, 0.8, 1.0])


def digest(text):
    return sha256(text.encode()).hexdigest()


def by_digest(groups):
    return sorted(groups, key=lambda group: digest("\n".join(group)))


def first_half(groups):
    """The smaller half if the number is odd."""
    return [group for place, group in enumerate(groups) if 2 * (place + 1) <= len(groups)]


def reference(part, names, levels):
    """The rule of `hold_out` by loops over names: ({train}, {test}), or None if it cannot be."""
    group_of = {}
    for place, name in enumerate(names):
        group_of[name] = tuple(levels[level][place] for level in (1, 0) if level < len(levels))
    whole = {}
    for group in by_digest({*group_of.values()}):
        whole[group] = sorted((name for name in names if group_of[name] == group), key=digest)
    has_two = [group for group in whole if len(whole[group]) >= 2]

    region, tested = [], []
    if len(levels) == 1:
        tested = first_half(has_two) or has_two[:1]
        region = tested
    else:
        tops = by_digest({group[:1] for group in whole})
        usable = []
        for top in tops:
            groups = [group for group in whole if group[:1] == top]
            if len(groups) >= 2 and any(group in has_two for group in groups):
                usable.append(top)
        chosen = first_half(usable) or usable[:1]
        chosen += first_half([top for top in tops if top not in usable])
        for top in chosen:
            groups = [group for group in whole if group[:1] == top]
            region += groups
            if top in usable:
                room = len(groups) // 2
                for group in groups:
                    if group in has_two and room:
                        tested.append(group)
                        room -= 1
    outside = [group for group in whole if group not in region]
    if not tested or not outside or RUNGS.index(part.holdout) > len(levels):
        return None

    used = {}
    for group, members in whole.items():
        used[group] = members[: max(1, int(part.class_fraction * len(members) + 0.5))]
    test, siblings = set(), {}
    for group in tested:
        siblings[group] = []
        for place, name in enumerate(used[group]):
            if place % 2 == 0:
                test.add(name)
            else:
                siblings[group].append(name)
    kinds = [siblings]
    if len(levels) > 1:
        kinds.append({group: used[group] for group in region if group not in tested})
    kinds.append({group: used[group] for group in outside})
    kinds = kinds[RUNGS.index(part.holdout) :]
    if not any(kinds[0].values()):
        return None
    wanted = sum(len(used[group]) for group in outside)
    train = []
    for kind in kinds:
        waiting = []
        for members in kind.values():
            for place, name in enumerate(members):
                waiting.append((Fraction(place, len(members)), digest(name), name))
        for _, _, name in sorted(waiting):
            if len(train) < wanted:
                train.append(name)
    return {*train}, test


def dealt(part, names, levels):
    """The names of the training and of the test classes; None if they cannot be dealt out."""
    try:
        split = hold_out(part, names, levels)
    except UnusableHoldout:
        return None
    assert split.train == sorted({*split.train})
    assert split.test == sorted({*split.test})
    return {names[place] for place in split.train}, {names[place] for place in split.test}


@given(taxonomies(), st.sampled_from(RUNGS), fractions)
def test_the_classes_are_those_of_the_rule(taxonomy, rung, fraction):
    names, levels = taxonomy
    part = Part(fraction, rung)
    assert dealt(part, names, levels) == reference(part, names, levels)


@given(taxonomies(), fractions, st.randoms(use_true_random=False))
def test_no_order_of_the_classes_changes_who_trains(taxonomy, fraction, random):
    names, levels = taxonomy
    order = [*range(len(names))]
    random.shuffle(order)
    shuffled = [names[place] for place in order], [[of[place] for place in order] for of in levels]
    for rung in RUNGS:
        part = Part(fraction, rung)
        assert dealt(part, *shuffled) == dealt(part, names, levels)


@given(taxonomies(), fractions)
def test_rungs_have_the_same_test_and_as_many_training_classes(taxonomy, fraction):
    names, levels = taxonomy
    splits = [dealt(Part(fraction, rung), names, levels) for rung in RUNGS[: len(levels) + 1]]
    made = [split for split in splits if split]
    assume(made)
    assert len({frozenset(test) for _, test in made}) == 1
    assert len({len(train) for train, _ in made}) == 1
    assert all(not train & test for train, test in made)
    assert all(train and test for train, test in made)
    if fraction == 1:
        assert len(made) == len(splits)  # all rungs or none


@given(taxonomies(), fractions)
def test_what_a_rung_names_is_unseen_in_training(taxonomy, fraction):
    names, levels = taxonomy
    group, top = groups_and_tops(names, levels)
    if second := dealt(Part(fraction, "level_1"), names, levels):
        train, test = ({group[name] for name in side} for side in second)
        assert not train & test
    if third := dealt(Part(fraction, "level_2"), names, levels):
        train, test = ({top[name] for name in side} for side in third)
        assert not train & test


@given(taxonomies())
def test_each_test_class_has_the_relatives_that_a_rung_leaves(taxonomy):
    names, levels = taxonomy
    group, top = groups_and_tops(names, levels)
    if nearest := dealt(Part(1.0, "class"), names, levels):
        train, test = ({group[name] for name in side} for side in nearest)
        assert test <= train or len(nearest[0]) < len(test)
    second = len(levels) > 1 and dealt(Part(1.0, "level_1"), names, levels)
    if second:
        train, test = ({top[name] for name in side} for side in second)
        beside = {group[name] for name in names if top[name] in test}
        assert test <= train or len(second[0]) < len(beside)


def groups_and_tops(names, levels):
    """Name of a class -> its level_1 group with what is above it, and its level_2 group."""
    paths = [*zip(*reversed(levels[:2]), strict=True)]
    return dict(zip(names, paths, strict=True)), {
        n: p[0] for n, p in zip(names, paths, strict=True)
    }


@given(taxonomies(), st.sampled_from(RUNGS))
def test_the_test_classes_of_a_smaller_share_are_among_those_of_a_larger_one(taxonomy, rung):
    # so that one search for near-duplicates serves them all
    names, levels = taxonomy
    splits = [dealt(Part(fraction, rung), names, levels) for fraction in (0.3, 0.6, 1.0)]
    whole = splits[-1]
    for smaller in filter(None, splits[:-1]):
        assert whole
        assert smaller[1] <= whole[1]
        assert not smaller[0] & whole[1]


def test_no_group_vanishes_where_classes_are_left_out():
    # whichever of the two is the region, the other one has fewer classes
    for outside in ("a", "b"):
        sizes = {"a": (9, 12, 8, 1, 7), "b": (9, 12, 8, 1, 7)} | {outside: (3, 3)}
        names, near, far = [], [], []
        for top, groups in sizes.items():
            for place, size in enumerate(groups):
                names += [f"{top}{place}.{number}" for number in range(size)]
                near += [f"{top}{place}"] * size
                far += [top] * size
        split = hold_out(Part(holdout="level_1"), names, [near, far])
        tested = {near[place] for place in split.test}
        if far[split.test[0]] != outside:
            counts = Counter(near[place] for place in split.train)
            beside = {group for group, top in zip(near, far, strict=True) if top != outside}
            assert counts.keys() == beside - tested
            assert counts.total() == 6
            return
    pytest.fail("neither is the region of the test")


PINNED = {
    "test": [8, 10],
    "class": [0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 17],
    "level_1": [0, 1, 2, 3, 4, 5, 6, 7, 13, 17, 18, 23],
    "level_2": [12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23],
}


def test_the_split_is_the_same_on_every_machine():
    names = [f"{place:02}" for place in range(24)]
    levels = [[f"g{place // 4}" for place in range(24)], [f"t{place // 12}" for place in range(24)]]
    split = {rung: hold_out(Part(holdout=rung), names, levels) for rung in RUNGS}
    assert all(split[rung].test == PINNED["test"] for rung in RUNGS)
    assert {rung: split[rung].train for rung in RUNGS} == {rung: PINNED[rung] for rung in RUNGS}


@pytest.mark.parametrize(
    ("holdout", "levels", "message"),
    [
        ("class", [], "class, and it has no super-classes"),
        ("level_2", ["aabb"], "level_2, and it has one level of super-classes. Take class"),
        ("level_1", ["aaaa"], "it needs two super-classes, of which one has two classes"),
        ("class", ["abcd"], "it needs two super-classes, of which one has two classes"),
        ("class", ["aabb", "tttt"], "it needs two super-classes of level_2, of which one has two"),
        ("level_1", ["aabb", "ttuu"], "it needs two super-classes of level_2"),
        ("level_2", ["abcd", "ttuu"], "it needs two super-classes of level_2"),
    ],
)
def test_a_data_set_without_the_groups_is_refused(holdout, levels, message):
    with pytest.raises(UnusableHoldout, match=message):
        hold_out(Part(holdout=holdout), ["1", "2", "3", "4"], [[*level] for level in levels])
    with pytest.raises(ValueError, match="holdout is 'level_3', not one of class, level_1"):
        hold_out(Part(holdout="level_3"), ["1"], [["a"]])


def test_a_small_share_is_told_to_grow():
    with pytest.raises(
        UnusableHoldout, match=r"so near to the test classes .* class_fraction: 0.1"
    ):
        hold_out(Part(0.1, "class"), [*"1234"], [[*"aabb"]])


@pytest.fixture
def store(pack_images, tmp_path):
    """Three images of each of 16 classes in four groups of two tops; with a validation part."""
    images = []
    for place in range(16):
        split = ("train", "validation", "test", "test")[place % 4]
        levels = (f"group {place // 4}", f"top {place // 8}")
        images += [(Row(f"{place:02}/{i}", f"c{place:02}", levels, split), solid) for i in range(3)]
    return pack_images(images, 2, tmp_path / "store")


def test_a_store_deals_out_the_images_of_all_its_splits(store: Store):
    names = [f"c{place:02}" for place in range(16)]
    levels = [[f"group {p // 4}" for p in range(16)], [f"top {p // 8}" for p in range(16)]]
    for rung in RUNGS:
        part = Part(holdout=rung)
        expected = hold_out(part, names, levels)
        for split, places in zip(("train", "test"), expected, strict=True):
            read = store.split(split, part)
            assert read.class_names == [names[place] for place in places]
            assert read.rows.tolist() == [3 * place + i for place in places for i in range(3)]
            assert read.labels.tolist() == [c for c in range(len(places)) for _ in range(3)]
            parents = [[levels[level][place] for place in places] for level in (0, 1)]
            dense = [np.unique(level, return_inverse=True)[1].tolist() for level in parents]
            assert read.parents is not None
            assert read.parents.tolist() == dense


def test_all_test_images_of_a_holdout_are_queries_and_gallery(store: Store):
    part = Part(holdout="level_1")
    table = store.protocols_of(part)
    assert table["id"].tolist() == store.split("test", part).rows.tolist()
    assert {*table["protocol"].tolist()} == {"zero_shot"}
    assert {*table["role"].tolist()} == {"both"}
    assert {*table["repetition"].tolist()} == {0}
    assert store.protocols_of(WHOLE) is store.protocols
    assert store.farthest_holdout() == Part(holdout="level_2")


def test_a_store_with_official_queries_is_refused(pack_images, tmp_path):
    roles = {"train": "both", "test": "query"}
    images = [
        (Row(f"{place}", f"c{place // 2}", (f"g{place // 4}",), split, roles[split]), solid)
        for place, split in enumerate(["train"] * 8 + ["test"] * 8)
    ]
    images[-1] = (images[-1][0]._replace(role="gallery"), solid)
    store = pack_images(images, 2, tmp_path / "roles")
    with pytest.raises(UnusableHoldout, match="class, and its test has official queries"):
        store.split("train", Part(holdout="class"))
