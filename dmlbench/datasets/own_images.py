"""What the types for the user's own images share: the split of the classes, and the facts of rows.

Folders and Parquet files say in their names which part an image belongs to: `train`, `test`, `val`,
`query`, `gallery`. In metric learning no test class is trained on. So parts that share classes are
no split, and it is the user who says what to do with them. A `val` beside a test is a part of the
training classes, which a study may hold out to choose settings.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Any

from dmlbench.datasets import Row
from dmlbench.datasets.metadata import SPLITS, draw_split
from dmlbench.datasets.store.format import VALIDATION
from dmlbench.utils.discovery import cache_folder
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.files import read_json, write_json
from dmlbench.utils.fingerprint import code_digest
from dmlbench.utils.text import count_of, listed

PARTS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "query": "query",
    "gallery": "gallery",
}
"""Names of parts of a data set, and what they mean."""
FRESH = 2.0
"""Seconds. Facts of a file that changed less than this ago are not cached: it may change again and
keep its time of change."""


def part_of(name: str) -> str:
    """What the name of a folder or of a split means: a value of PARTS, or "".

    >>> part_of("Validation"), part_of("apples")
    ('val', '')
    """
    return PARTS.get(name.casefold(), "")


def split_rows(
    place: Path | str, rows: Sequence[Row], split: str | None, seed: int, ignore_hint: str
) -> list[Row]:
    """Give each row its split and its role, sorted by path.

    Args:
        place: where the images are, for messages.
        rows: in place of its split, each has the name of its part; "" if it has none.
        split: "classes" draws half of the classes of each nearest super-class for training, and
            forgets the parts. None does this only if there are no two parts.
        seed: of the draw.
        ignore_hint: how the user leaves a part out, for messages.

    Raises:
        DatasetError: parts share classes or are no split, or classes are wrong. One text names all.
    """
    problems = [*_wrong_classes(rows)]
    parts = {row.split for row in rows}
    if split == "classes" or len(parts) < 2:
        drawn = draw_split([row.class_name for row in rows], [row.levels for row in rows], seed)
        rows = [row._replace(split=part) for row, part in zip(rows, drawn, strict=True)]
    else:
        meanings, wrong = _meanings(parts, ignore_hint)
        problems += wrong or _shared_classes(rows, meanings, ignore_hint)
        rows = [_placed(row, meanings.get(row.split, "")) for row in rows]
    if not problems:
        problems += [*_incomplete(rows)]
    if problems:
        raise DatasetError(listed(f"{place}: {count_of(len(problems), 'problem')}", problems))
    return sorted(rows)


def _meanings(parts: Iterable[str], ignore_hint: str) -> tuple[dict[str, str], list[str]]:
    """What each of several parts means, and what is wrong with them."""
    meanings = {name: part_of(name) for name in sorted(parts)}
    problems = []
    unknown = [name for name, meaning in meanings.items() if not meaning]
    validation = [name for name, meaning in meanings.items() if meaning == "val"]
    if len(unknown) == len(meanings):
        problems.append(
            f"the parts are {', '.join(meanings)}, and not train and test: write `split: classes` "
            f"to let half of the classes train"
        )
    elif unknown:
        known = ", ".join(name for name in meanings if name not in unknown)
        others = ", ".join(name or "images of no part" for name in unknown)
        problems.append(f"beside {known} there is {others}: {ignore_hint}")
    has_test = {"test", "query", "gallery"} & {*meanings.values()}
    meanings |= dict.fromkeys(validation, VALIDATION if has_test else "test")
    return meanings, problems


def _placed(row: Row, meaning: str) -> Row:
    """The row with the split and the role that its part means."""
    if meaning in ("query", "gallery"):
        return row._replace(split="test", role=meaning)
    return row._replace(split=meaning)


def _shared_classes(
    rows: Iterable[Row], meanings: dict[str, str], ignore_hint: str
) -> Iterator[str]:
    """Classes that are in two of the parts train, validation and test."""
    names: dict[str, dict[str, None]] = {}
    for row in rows:
        names.setdefault(row.class_name, {})[row.split] = None
    splits = {part: meanings[part] for part in meanings}
    splits |= {part: "test" for part in meanings if meanings[part] in ("query", "gallery")}
    shared = {
        name: sorted(parts, key=lambda part: splits[part] != "train")
        for name, parts in names.items()
        if len({splits[part] for part in parts}) > 1
    }
    if not shared:
        return
    first, parts = next(iter(shared.items()))
    where = f"{len(shared):,} of {count_of(len(names), 'class')} in {' and in '.join(parts)}"
    fix = (
        "write `split: classes`, which puts the images together and lets half of the classes train"
    )
    if all(VALIDATION in {splits[part] for part in parts} for parts in shared.values()):
        yield (
            f"{where}, as {first}. A validation needs classes that are not trained on, nor tested: "
            f"{ignore_hint}, or {fix}"
        )
    else:
        yield f"{where}, as {first}. No test class may be trained on: {fix}"


def _wrong_classes(rows: Iterable[Row]) -> Iterator[str]:
    """Classes with one image or with two super-classes, and paths that are there twice."""
    counts: Counter[str] = Counter()
    paths: dict[str, Row] = {}
    levels: dict[str, Row] = {}
    reported = set()
    for row in rows:
        counts[row.class_name] += 1
        first = paths.setdefault(row.path, row)
        if first is not row:
            yield f"{row.origin}: {row.path} is there already, as {first.origin}"
        first = levels.setdefault(row.class_name, row)
        if first.levels != row.levels and row.class_name not in reported:
            reported.add(row.class_name)
            yield (
                f"{row.origin}: the super-classes of class '{row.class_name}' are "
                f"{', '.join(row.levels)}, and {', '.join(first.levels)} in {first.origin}"
            )
    for name, count in counts.items():
        if count == 1:
            yield f"class '{name}' has only one image, {levels[name].path}; a class needs two"


def _incomplete(rows: Sequence[Row]) -> Iterator[str]:
    """Splits without a class, and tests without queries or gallery."""
    for split in SPLITS:
        if not any(row.split == split for row in rows):
            count = len({row.class_name for row in rows})
            yield f"it has {count_of(count, 'class')}, and none of them is in the split {split}"
    roles = {row.role for row in rows if row.split == "test"}
    for role, other in (("query", "gallery"), ("gallery", "query")):
        if role in roles and not roles & {other, "both"}:
            yield f"it has images with role {role}, and none with {other}"


class Ignored:
    """The names that the user leaves out under `ignore`. Each must match something.

    Args:
        patterns: names, or patterns as `*.gif`.

    >>> ignored = Ignored(("val", "*.gif"))
    >>> ignored.matches("val/a/1.png"), ignored.matches("a/1.png"), ignored.unused()
    (True, False, ['*.gif'])
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._unused = dict.fromkeys(patterns)
        self._patterns = tuple(patterns)

    def matches(self, path: str) -> bool:
        """Whether `path`, the beginning of it, or one of its parts is left out."""
        if not self._patterns:
            return False
        parts = path.split("/")
        names = {*parts, *("/".join(parts[:end]) for end in range(1, len(parts) + 1))}
        matching = [p for p in self._patterns if any(fnmatchcase(name, p) for name in names)]
        for pattern in matching:
            self._unused.pop(pattern, None)
        return bool(matching)

    def unused(self) -> list[str]:
        """The patterns that matched nothing so far."""
        return [*self._unused]


def row_facts(rows: Sequence[Row]) -> dict[str, Any]:
    """[classes, images] of each split, and a digest of the rows."""
    content = json.dumps([row[:-1] for row in rows])  # without the origins
    images = Counter(row.split for row in rows)
    classes = Counter(split for _, split in {(row.class_name, row.split) for row in rows})
    known = [split for split in (*SPLITS, VALIDATION) if split in SPLITS or images[split]]
    splits = {split: [classes[split], images[split]] for split in known}
    return {"splits": splits, "rows": f"sha256:{sha256(content.encode()).hexdigest()}"}


def cached_facts(
    module: str, files: Sequence[Path], reading: Any, compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What `compute` says of `files`, from the cache folder if they did not change.

    Every job needs the facts of its images, and to read large tables takes seconds.

    Args:
        module: its code reads the files.
        files: what is read.
        reading: the options of the reading, as `repr` shows them.
        compute: called if the cache has nothing.

    Raises:
        OSError: there is no such file.
    """
    stats = [file.stat() for file in files]
    states = [
        (str(file.resolve()), s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        for file, s in zip(files, stats, strict=True)
    ]
    key = repr((states, reading, code_digest(module)))
    name = f"rows-{sha256(key.encode()).hexdigest()[:16]}.json"
    cached = cache_folder() / name
    try:
        return read_json(cached)
    except (OSError, ValueError):
        facts = compute()
        if time.time() - max(s.st_ctime for s in stats) > FRESH:
            with contextlib.suppress(OSError):  # without a cache it is only slower
                write_json(cached, facts)
        return facts


def check_utf8(path: str) -> None:
    """Refuse a name of a file that is no text.

    Raises:
        DatasetError: the name is not UTF-8.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise DatasetError(f"{shown}: this name is not UTF-8. Rename the file.") from None
