"""Which classes of a data set a study uses, and which of them it leaves out of the training.

A data set has its own split. A holdout makes another one from the super-classes: all classes, those
of the test too, are dealt out again. Its rungs hold out a class, a group of classes (level_1), or a
group of groups (level_2). All rungs have the same test classes and as many training classes.

All functions are pure: they know names only, and give the same classes with every version of every
library. No order of the rows counts.
"""

from __future__ import annotations

import math
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

    Of each group, `part.class_fraction` of its classes are used. With two levels or more, half of
    the level_2 groups are the region of the test, and half of the level_1 groups in it are the
    groups of the test. With one level, these are half of all groups. Every second class of the
    groups of the test is a test class. The training takes

    - `class`: the other classes of these groups first, then those of the region, then those
      outside it;
    - `level_1`: the classes of the region, without the groups of the test, then those outside it;
    - `level_2`: the classes outside the region;

    until it has as many as there are outside the region (with one level, outside the groups of the
    test). If it does not need all classes of one of these kinds, it takes the same share of each
    level_1 group. Digests of the names decide which groups and which classes are chosen.

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
        fix = "Leave this rung out"
        if part.class_fraction < 1:
            fix += f", or raise class_fraction: {part.class_fraction:g}"
        raise UnusableHoldout(f"{rung}, and {_NONE_LEFT[rung]}. {fix}")
    train: list[int] = []
    count = sum(map(len, sources[-1]))
    for groups in sources:
        train += _evenly(groups, count - len(train), names)
    return HeldOut(sorted(train), sorted(test))


_NONE_LEFT = {
    "class": "each level_1 group of the test has one class, so none is left to train on",
    "level_1": "the level_2 groups of the test have one level_1 group, so none is left to train on",
}


def _deal(
    fraction: float, names: Sequence[str], levels: Sequence[Sequence[str]]
) -> tuple[list[int], list[list[list[int]]]]:
    """The test classes, and the classes that may train, by their distance: the nearest first. Each
    distance has a list of classes for each of its groups.

    Raises:
        UnusableHoldout: there is one group at the farthest level.
    """
    paths: list[Group] = [*zip(*levels[1::-1], strict=True)]
    members: dict[Group, list[int]] = {path: [] for path in _in_order({*paths})}
    for place in _by_digest(choose_classes(names, paths, fraction), names):
        members[paths[place]].append(place)
    depth = len(levels[:2])
    farthest = _in_order({path[:1] for path in members})
    if len(farthest) == 1:
        raise UnusableHoldout(
            f"all classes are in one super-class of level_{depth}, {farthest[0][0]}. It needs two "
            f"or more"
        )
    region = [*members]
    if depth > 1:
        is_near = {*_first_half(farthest)}
        region = [path for path in members if path[:1] in is_near]
    tested = _first_half(region) or region
    distances = [
        [members[path][1::2] for path in tested],
        [members[path] for path in region if path not in tested],
        [members[path] for path in members if path not in region],
    ]
    return [c for path in tested for c in members[path][::2]], distances[: depth + 1]


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


def _first_half(values: list[Group]) -> list[Group]:
    """The first half, the smaller one if the number is odd."""
    return values[: len(values) // 2]


def _in_order(groups: set[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: _digest("\n".join(group)))


def _by_digest(places: Iterable[int], names: Sequence[str]) -> list[int]:
    return sorted(places, key=lambda place: _digest(names[place]))


def _digest(name: str) -> bytes:
    return sha256(name.encode()).digest()
