"""How many classes and images a data set trains and tests on, before any image is packed.

The exact sizes of the classes come from the rows of the user's own table, or from the packed store.
They are computed once, and remembered. Until a store is packed, the facts of its data set have the
numbers of classes and images.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dmlbench.datasets import Row, load
from dmlbench.datasets.store.checks import read_manifest
from dmlbench.datasets.store.format import VALIDATION, ZERO_SHOT
from dmlbench.datasets.store.part import (
    OWN_TEST,
    Part,
    UnusableHoldout,
    choose_classes,
    hold_out,
)
from dmlbench.study.run import Run, count_images
from dmlbench.utils.discovery import remember, remembered, versions
from dmlbench.utils.modules import module_file

if TYPE_CHECKING:
    from dmlbench.datasets.store.reader import Store


class SplitSizes(NamedTuple):
    """A split, with the part of the classes that a study uses."""

    classes: int
    """Where only the facts are known, at most this many. It is exact without super-classes."""
    images: int
    """Where only the facts are known, at most this many."""
    largest: int | None = None
    """Images of the largest class; None if nobody has counted them."""
    parents: list[list[int]] | None = None
    """Super-class of each class at each level, the nearest level first; None if not known."""


class ProtocolSizes(NamedTuple):
    """A test protocol: the smallest numbers of all its repetitions."""

    queries: int
    answerable: int
    """Queries that have another image of their class in the gallery."""
    gallery: int


class ClassSizes(NamedTuple):
    """What a data set trains and tests on."""

    train: SplitSizes | None
    """With the classes of its own validation part."""
    test: SplitSizes | None
    protocols: dict[str, ProtocolSizes]
    """Empty if only the facts are known."""
    validation: SplitSizes | None = None
    """Its own validation part, if it has one."""


def class_sizes(run: Run, stores: Path) -> ClassSizes | None:
    """The sizes of the data set of `run`; None if nobody knows them before it is packed.

    Args:
        stores: the folder of the packed images.

    Raises:
        DatasetError: the rows of the data set, or its store, cannot be read.
        UnusableHoldout: its classes cannot be dealt out as the study wants.
    """
    dataset, part = load(run.data.type, run.data.options), run.data.part
    manifest = read_manifest(stores / run.store)
    has_rows = not dataset.SOURCES or getattr(dataset, "is_staged", False)
    if has_rows:
        code = sha256(module_file(f"dmlbench.datasets.{run.data.type}").read_bytes()).hexdigest()
        facts = ["rows", run.data.type, dict(run.facts), code, versions("matplotlib"), part]
    elif "content" in manifest:
        facts = ["store", manifest["content"], part]
    else:
        return _from_facts(run)
    known = remembered("split sizes", facts)
    if known is None:
        rows = known_rows(dataset)
        sizes = _read(run, stores) if rows is None else _count(rows, part)
        remember("split sizes", facts, sizes)
        return sizes
    train, test, protocols, validation = known
    return ClassSizes(
        train and SplitSizes(*train),
        test and SplitSizes(*test),
        {name: ProtocolSizes(*sizes) for name, sizes in protocols.items()},
        validation and SplitSizes(*validation),
    )


def _from_facts(run: Run) -> ClassSizes | None:
    """The sizes by the facts of a data set whose archives are not read yet."""
    splits = run.facts.get("splits")
    if splits is None:
        return None
    fraction, levels = run.data.class_fraction, run.facts["levels"]
    if run.data.holdout:
        classes, images = (sum(numbers) for numbers in zip(*splits.values(), strict=True))
        everything = SplitSizes(classes, images)
        return ClassSizes(everything, everything, {})

    def sizes(*names: str) -> SplitSizes | None:
        if names[0] not in splits:
            return None
        counts = [splits[name] for name in names if name in splits]
        classes, images = (sum(numbers) for numbers in zip(*counts, strict=True))
        if fraction < 1 and not levels:  # else it is a fraction of each super-class
            classes = max(1, math.floor(fraction * classes + 0.5))
        return SplitSizes(classes, images)

    return ClassSizes(sizes("train", VALIDATION), sizes("test"), {}, sizes(VALIDATION))


def known_rows(dataset: Any) -> Sequence[Row] | None:
    """The rows of a data set, in any order; None if they are in archives that are not read yet."""
    if dataset.SOURCES and not getattr(dataset, "is_staged", False):
        return None
    rows: Sequence[Row] | None = getattr(dataset, "rows", None)
    return [row for row, _ in dataset.images({})] if rows is None else rows


def _count(rows: Sequence[Row], part: Part) -> ClassSizes:
    """The sizes by the rows of a data set that has no protocols of its own."""
    train, test = chosen_rows(rows, "train", part), chosen_rows(rows, "test", part)
    validation = [row for row in train if row.split == VALIDATION and not part.holdout]
    roles = [(row.class_name, row.role) for row in test]
    protocols = {ZERO_SHOT: _protocol(roles)} if test else {}
    return ClassSizes(_split(train), _split(test), protocols, _split(validation))


def chosen_rows(rows: Sequence[Row], split: str, part: Part) -> Sequence[Row]:
    """Those of the rows of a data set that are in a split, as the reader of a store has them.

    Args:
        rows: all rows.
        split: "train", which has those of a validation part too, or "test".

    Raises:
        UnusableHoldout: the classes cannot be dealt out as `part` says.
    """
    if not part.holdout:
        splits = ("train", VALIDATION) if split == "train" else (split,)
        rows = [row for row in rows if row.split in splits]
        if part.class_fraction == 1:
            return rows
    levels = {row.class_name: row.levels for row in rows}
    names = sorted(levels)
    if part.holdout:
        if any(row.role != "both" for row in rows):
            raise UnusableHoldout(f"{part.holdout}, and {OWN_TEST}")
        of_classes = [*zip(*(levels[name] for name in names), strict=True)]
        dealt = hold_out(part, names, of_classes)
        chosen = dealt.train if split == "train" else dealt.test
    else:
        nearest = [levels[name][:1] for name in names]
        chosen = choose_classes(names, nearest, part.class_fraction)
    kept = {names[place] for place in chosen}
    return [row for row in rows if row.class_name in kept]


def _split(rows: Sequence[Row]) -> SplitSizes | None:
    if not rows:
        return None
    counts = Counter(row.class_name for row in rows)
    levels_of = {row.class_name: row.levels for row in rows}
    levels = zip(*(levels_of[name] for name in sorted(levels_of)), strict=True)
    parents = []
    for level in levels:
        number = {name: place for place, name in enumerate(sorted({*level}))}
        parents.append([number[name] for name in level])
    return SplitSizes(len(counts), len(rows), max(counts.values()), parents)


def _protocol(roles: Iterable[tuple[Any, str]]) -> ProtocolSizes:
    """The sizes of one repetition, from the class and the role of each image."""
    queries, gallery, both = Counter[Any](), Counter[Any](), Counter[Any]()
    for label, role in roles:
        if role != "gallery":
            queries[label] += 1
        if role != "query":
            gallery[label] += 1
        if role == "both":
            both[label] += 1
    # An image with the role "both" is in the gallery itself, and does not answer itself
    answerable = sum(
        both[label] * (gallery[label] > 1) + (count - both[label]) * (gallery[label] > 0)
        for label, count in queries.items()
    )
    return ProtocolSizes(queries.total(), answerable, gallery.total())


def _read(run: Run, stores: Path) -> ClassSizes:
    """The sizes by the packed store."""
    from dmlbench.datasets.store.reader import Store

    store = Store(stores / run.store)
    part = run.data.part
    splits: dict[str, SplitSizes | None] = {"train": None, "test": None}
    for name in splits if part.holdout else {*store.index["split"].tolist()} - {VALIDATION}:
        split = store.split(name, part)
        counts = Counter(split.labels.tolist())
        parents = [] if split.parents is None else split.parents.tolist()
        splits[name] = SplitSizes(len(counts), len(split.rows), max(counts.values()), parents)
    test = {*store.split("test", part).rows.tolist()} if splits["test"] else set()
    labels, table = store.index["label"].tolist(), store.protocols_of(part)
    columns = [table[name].tolist() for name in ("protocol", "repetition", "id", "role")]
    repetitions: dict[tuple[str, int], list[tuple[Any, str]]] = {}
    for protocol, repetition, image, role in zip(*columns, strict=True):
        if image in test:
            repetitions.setdefault((protocol, repetition), []).append((labels[image], role))
    protocols: dict[str, ProtocolSizes] = {}
    for (protocol, _), roles in repetitions.items():
        sizes = _protocol(roles)
        smallest = protocols.get(protocol, sizes)
        protocols[protocol] = ProtocolSizes(*map(min, smallest, sizes))
    return ClassSizes(splits["train"], splits["test"], protocols, _read_validation(store, part))


def _read_validation(store: Store, part: Part) -> SplitSizes | None:
    """The sizes of the validation part of the classes that train; a holdout has none."""
    split = store.index["split"]
    if part.holdout or not (split == VALIDATION).any():
        return None
    train = store.split("train", part)
    counts = Counter(train.labels[split[train.rows] == VALIDATION].tolist())
    return SplitSizes(len(counts), counts.total(), max(counts.values())) if counts else None


def count_used_images(run: Run, store: Path) -> dict[str, float] | None:
    """Split -> number of images that the run's data set uses of it; None if nobody has counted
    them. It is an estimate if not all classes are used and the exact sizes are not known.

    Args:
        store: folder of the packed images, which need not exist.

    Raises:
        DatasetError: the rows of the data set, or its store, cannot be read.
    """
    counts, data = count_images(run, store), run.data
    if counts is None:
        return None
    if not data.holdout:
        return {split: count * data.class_fraction for split, count in counts.items()}
    sizes = class_sizes(run, store.parent)
    if sizes and sizes.train and sizes.test and sizes.protocols:
        return {"train": sizes.train.images, "test": sizes.test.images}
    images = sum(counts.values()) * data.class_fraction
    return {"train": images / 2, "test": images / (8 if len(run.facts["levels"]) > 1 else 4)}
