"""Which classes of a data set a study uses, and which of them it leaves out of the training.

A data set has its own split. A holdout makes another one from the super-classes: all classes, those
of the test too, are dealt out again. Its rungs hold out a class, a group of classes (level_1), or a
group of groups (level_2). All rungs have the same test classes and as many training classes.

All functions are pure: they know names only, and give the same classes with every version of every
library. No order of the rows counts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

from dmlbench.utils.errors import DatasetError

RUNGS = ("class", "level_1", "level_2")
"""The values of `holdout`, from the nearest test classes to the farthest."""

Group = tuple[str, ...]
"""A super-class with what is above it: (level_2, level_1), or (level_1,) if there is one level. So
two groups of one name in two groups of level_2 are two."""


OWN_TEST = (
    "its test has official queries and an official gallery, or pairs, which are of its own test "
    "classes. Leave holdout out"
)
"""Why the classes of some data sets cannot be dealt out anew."""


class UnusableHoldout(DatasetError):
    """A data set has not the super-classes that a holdout needs."""


class Part(NamedTuple):
    """Which classes of a data set a study uses: settings of a data set of the same names."""

    class_fraction: float = 1.0
    holdout: str | None = None
    """A value of RUNGS; None: the data set's own split."""


WHOLE = Part()


class HeldOut(NamedTuple):
    """Classes by their places, ascending."""

    train: list[int]
    test: list[int]


def hold_out(part: Part, names: Sequence[str], levels: Sequence[Sequence[str]]) -> HeldOut:
    """Deal all classes of a data set out to training and test, as `part.holdout` says.

    With two levels or more, the region of the test is half of the level_2 groups, and the groups of
    the test are at most half of the level_1 groups of each of these. With one level, they are half
    of all groups. A group of the test has two classes or more, and every second one is a test
    class. The training takes

    - `class`: the other classes of these groups first, then those of the region, then those
      outside it;
    - `level_1`: the classes of the region, without the groups of the test, then those outside it;
    - `level_2`: the classes outside the region;

    until it has as many as there are outside the region (with one level, outside the groups of the
    test). If it does not need all classes of one of these kinds, it takes the same share of each
    level_1 group. So each test class has other classes of its group beside it on the first rung,
    and other groups of its level_2 group on the second one. Digests of the names decide which
    groups and which classes are chosen. Of the classes of each level_1 group, only the share
    `part.class_fraction` is dealt out.

    Args:
        names: C names of all classes of the data set, each once.
        levels: (L, C) the super-class of each class at each level, the nearest level first. Only
            two levels count.

    Returns:
        Places in `names`. The test classes are the same for every holdout.

    Raises:
        UnusableHoldout: the data set has too few levels, groups or classes.
        ValueError: `part.holdout` is no rung.

    >>> names = [f"{group}{number}" for group in "abcdefgh" for number in range(4)]
    >>> near = [name[0] for name in names]
    >>> far = ["left" if group in "abcd" else "right" for group in near]
    >>> for rung in RUNGS:
    ...     split = hold_out(Part(holdout=rung), names, [near, far])
    ...     train, test = ("".join(names[place] for place in places) for places in split)
    ...     print(f"{rung:7} {train} tests {test}")
    class   a2b2c0d0e1e3f0f1f2f3g0g2h0h1h2h3 tests e0e2g1g3
    level_1 a0a2b2b3c0c3d0d1f0f1f2f3h0h1h2h3 tests e0e2g1g3
    level_2 a0a1a2a3b0b1b2b3c0c1c2c3d0d1d2d3 tests e0e2g1g3
    """
    rung = part.holdout
    if rung not in RUNGS:
        raise ValueError(f"holdout is {rung!r}, not one of {', '.join(RUNGS)}")
    if not levels:
        raise UnusableHoldout(f"{rung}, and it has no super-classes. Leave holdout out")
    if RUNGS.index(rung) > len(levels):
        fix = "Take class or level_1"
        raise UnusableHoldout(f"{rung}, and it has one level of super-classes. {fix}")
    test, sources = _deal(part.class_fraction, names, levels)
    sources = sources[RUNGS.index(rung) :]
    if not any(sources[0]):  # it would be the next rung under another name
        raise UnusableHoldout(
            f"{rung}, and no class that is so near to the test classes is left to train on. Raise "
            f"class_fraction: {part.class_fraction:g}"
        )
    train: list[int] = []
    count = sum(map(len, sources[-1]))
    for groups in sources:
        train += _evenly(groups, count - len(train), names)
    return HeldOut(sorted(train), sorted(test))


_TOO_FEW = (
    "it needs two super-classes, of which one has two classes",
    "it needs two super-classes of level_2, of which one has two super-classes of level_1, of "
    "which one has two classes",
)


def _deal(
    fraction: float, names: Sequence[str], levels: Sequence[Sequence[str]]
) -> tuple[list[int], list[list[list[int]]]]:
    """The test classes, and the classes that may train, by their distance: the nearest first. Each
    distance has a list of classes for each of its groups.

    Raises:
        UnusableHoldout: there are too few groups, or they have too few classes.
    """
    paths: list[Group] = [*zip(*levels[1::-1], strict=True)]
    sizes = Counter(paths)
    groups = _in_order(sizes)
    if len(levels) == 1:
        tested = {*_half([group for group in groups if sizes[group] > 1])}
        region = tested
    else:
        tops = _in_order({group[:1] for group in groups})
        below: dict[Group, list[Group]] = {top: [] for top in tops}
        for group in groups:
            below[group[:1]].append(group)
        # so that both other classes of the group and other groups of the level_2 group can train
        held = {
            top: [group for group in of_top if sizes[group] > 1][: len(of_top) // 2]
            for top, of_top in below.items()
        }
        others = [top for top in tops if not held[top]]
        near = [*_half([top for top in tops if held[top]]), *others[: len(others) // 2]]
        tested = {group for top in near for group in held[top]}
        region = {group for top in near for group in below[top]}
    if not tested or len(region) == len(groups):
        raise UnusableHoldout(f"{_TOO_FEW[len(levels) > 1]}. Leave it out")

    members: dict[Group, list[int]] = {group: [] for group in groups}
    for place in _by_digest(choose_classes(names, paths, fraction), names):
        members[paths[place]].append(place)
    siblings = [members[group][1::2] for group in tested]
    beside = [members[group] for group in region - tested]
    outside = [members[group] for group in members.keys() - region]
    distances = [siblings, beside, outside] if len(levels) > 1 else [siblings, outside]
    return [place for group in tested for place in members[group][::2]], distances


def _half(groups: Sequence[Group]) -> Sequence[Group]:
    """The first half, at least one if there is one."""
    return groups[: max(1, len(groups) // 2)]


def choose_classes(names: Sequence[str], groups: Sequence[Hashable], fraction: float) -> list[int]:
    """Places of the chosen classes, ascending: the first of each group by the digest of their
    names, at least one.

    The digests give an arbitrary order that no version of a library can change.
    """
    members: dict[Hashable, list[int]] = {}
    for place in _by_digest(range(len(names)), names):
        members.setdefault(groups[place], []).append(place)
    chosen = [m[: max(1, math.floor(fraction * len(m) + 0.5))] for m in members.values()]
    return sorted(place for group in chosen for place in group)


def _evenly(groups: Iterable[Sequence[int]], count: int, names: Sequence[str]) -> list[int]:
    """`count` of the classes of `groups`, or all if they are fewer: the same share of each group,
    and the first class of each group before any second one."""
    ranked = [
        (rank / len(group), _digest(names[place]), place)
        for group in groups
        for rank, place in enumerate(group)
    ]
    return [place for _, _, place in sorted(ranked)[:count]]


def _in_order(groups: Iterable[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: _digest("\n".join(group)))


def _by_digest(places: Iterable[int], names: Sequence[str]) -> list[int]:
    return sorted(places, key=lambda place: _digest(names[place]))


def _digest(name: str) -> bytes:
    return sha256(name.encode()).digest()
