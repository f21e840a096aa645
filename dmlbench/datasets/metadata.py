"""Read a CSV of images into checked rows. One message names all problems, each with its line.

The first line names the columns, in any order:

- path: of an image, relative to the CSV's folder (or to `images`, if the study gives that);
- label: its class;
- split (optional): train, validation or test, the same for all images of a class. The classes of
  validation train too; a study may hold them out to choose settings. Without this column half of
  the classes of each super-class (of the nearest level) train, drawn by a seed;
- role (optional, needs split): query, gallery or both, for test images; empty: both;
- super-classes, as the study names them under `levels`.

Any other column must be listed under `ignore`: otherwise a misspelt "split" would pass unnoticed.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path

from dmlbench.datasets import Row
from dmlbench.datasets.archives.reading import open_zip, read_member
from dmlbench.datasets.csv_text import SHOWN, Problem, Table, read_csv_text, shown
from dmlbench.datasets.names import normalize_label, normalize_path
from dmlbench.datasets.store.format import VALIDATION
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.reading import read_bytes
from dmlbench.utils.text import count_of, listed, some_of

SPLITS = ("train", "test")
"""The splits that every data set of a user has."""
ROLES = ("query", "gallery", "both", "")
OUTSIDE = re.compile(r"/|\.\./|\.\.$|[A-Za-z]:/")
"""The beginning of a normalised path that leads out of the images' folder."""
MAX_BYTES = 1_000_000_000
"""Of a CSV: some 10 million images."""
SHOWN_NAMES = 8
"""Most columns that a message lists."""
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""The beginning of a normalised address: `https:/`, `file:/`."""


def read_rows(
    file: Path, levels: Sequence[str], ignore: Sequence[str], split_seed: int, place: Path
) -> list[Row]:
    """The rows of a CSV, sorted by path.

    Args:
        file: the CSV, or a zip with one CSV in it.
        levels: columns of super-classes, the nearest to the class first.
        ignore: columns without meaning here.
        split_seed: seed of the split, if the CSV has no column `split`.
        place: folder or zip of the images; absolute paths may lead into the folder.

    Raises:
        DatasetError: lines are wrong; the text names them.
    """
    levels, ignore = [*map(normalize_label, levels)], [*map(normalize_label, ignore)]
    known = ("path", "label", "split", "role", *levels, *ignore)
    table = read_csv_text(file, _read_content(file), known)
    columns = _columns(table, levels, ignore, place)
    problems = [
        *table.problems,
        *((table.header_line, text) for text in _wrong_header(table.header, levels, ignore)),
        *_uneven_rows(table),
        *_wrong_values(columns, table.lines, levels, place),
        *_wrong_classes(columns, table, levels),
    ]
    if problems:
        texts = [f"line {line}: {text}" for line, text in sorted(problems)]
        raise DatasetError(listed(f"{file}: {count_of(len(texts), 'problem')}", texts))
    labels = columns["label"]
    supers = [*zip(*(columns[name] for name in levels), strict=True)] or [()] * len(labels)
    splits = columns.get("split") or draw_split(labels, supers, split_seed)
    roles = [role or "both" for role in columns.get("role") or [""] * len(labels)]
    _check_complete(file, splits, roles)
    origins = [f"{file}, line {line}" for line in table.lines]
    cells = zip(columns["path"], labels, supers, splits, roles, origins, strict=True)
    return sorted(Row(*row) for row in cells)


def is_zip(path: Path) -> bool:
    """Whether `path` is a zip by its name; a folder may have any name."""
    return path.suffix.lower() == ".zip" and not path.is_dir()


def csv_in_zip(path: Path) -> str:
    """The name of the one CSV in a zip.

    Raises:
        DatasetError: the zip holds no CSV, or several.
    """
    with open_zip(path) as (_, members):
        names = [name for name in members if name.lower().endswith((".csv", ".tsv"))]
    if len(names) != 1:
        raise DatasetError(
            f"{path}: it holds {', '.join(names[:5]) or 'no CSV'}, and not one CSV. "
            f"Put the CSV next to it as `file`, and name the zip under `images`."
        )
    return names[0]


def _read_content(file: Path) -> bytes:
    """The content of a CSV, or of the one CSV in a zip."""
    if file.is_dir():
        tables = sorted(path.name for path in file.glob("*.csv"))
        fix = f"name the CSV in it: {', '.join(tables[:5])}" if tables else "name a CSV"
        raise DatasetError(f"file: {file} is a folder: {fix}. `type: folder` needs no CSV.")
    try:
        if is_zip(file):
            return read_member(file, csv_in_zip(file))
        return read_bytes(file, MAX_BYTES)
    except OSError as error:
        raise DatasetError(f"file: cannot read {file}: {error.strerror}.") from None


def _columns(
    table: Table, levels: Sequence[str], ignore: Sequence[str], place: Path
) -> dict[str, list[str]]:
    """The columns by name, without the ignored ones, each value in its one form."""
    cells = zip(*table.rows, strict=True) if table.rows else [()] * len(table.header)
    columns = {
        name: [*column]
        for name, column in zip(table.header, cells, strict=True)
        if name not in ignore
    }
    for name in {"label", *levels} & {*columns}:
        columns[name] = [*map(normalize_label, columns[name])]
    if "path" in columns:
        # an absolute path may name the folder with its links or without them
        folders = {str(place.resolve()), os.path.abspath(place)}  # noqa: PTH100
        roots = tuple(f"{normalize_path(folder)}/" for folder in folders)
        columns["path"] = [_inside(normalize_path(path), roots) for path in columns["path"]]
    return columns


def _inside(path: str, roots: Iterable[str]) -> str:
    """`path` relative to the one of `roots` that it begins with."""
    for root in roots if path.startswith("/") else ():
        if path.startswith(root):
            return path.removeprefix(root)
    return path


def _wrong_header(header: Sequence[str], levels: Sequence[str], ignore: Sequence[str]) -> list[str]:
    known = ["path", "label", "split", "role", *levels, *ignore]
    problems = []
    for name, count in Counter(header).items():
        if not name:
            problems.append(f"column {header.index(name) + 1} has no name")
            continue
        if count > 1:
            problems.append(f"column '{shown(name)}' is there twice")
        if name not in known:
            near = (
                get_close_matches(name[:SHOWN], known, n=1) if len(problems) < SHOWN_NAMES else []
            )
            guess = f" Did you mean '{near[0]}'?" if near else ""
            problems.append(
                f"column '{shown(name)}' is unknown.{guess} Name super-classes under `levels` of "
                f"the study's entry, and columns that do not matter under `ignore`"
            )
    for name in ("path", "label", *levels):
        if name not in header:
            problems.append(f"column '{name}' is missing; the columns are {_listing(header)}")
        if name in ignore:
            problems.append(f"column '{name}' cannot be ignored")
    if "role" in header and "split" not in header:
        problems.append("column 'role' needs a column 'split'")
    return problems


def _uneven_rows(table: Table) -> Iterator[Problem]:
    for line, cells in table.uneven:
        hint = " (put a value with a separator in it in quotes)" * (len(cells) > len(table.header))
        values = count_of(len(cells), "value")
        yield line, f"{values} for {count_of(len(table.header), 'column')}{hint}"


def _wrong_values(
    columns: dict[str, list[str]], lines: Sequence[int], levels: Sequence[str], place: Path
) -> Iterator[Problem]:
    """Problems of one cell, or of the column of paths."""
    for name in ("path", "label", *levels):
        if "" in (column := columns.get(name, [])):
            for line, value in zip(lines, column, strict=True):
                if not value:
                    yield line, f"{name} is empty"
    for name, allowed in (("split", ("train", VALIDATION, "test")), ("role", ROLES)):
        if not set(column := columns.get(name, [])) <= {*allowed}:
            for line, value in zip(lines, column, strict=True):
                if value not in allowed:
                    known = " or ".join(filter(None, allowed))
                    yield line, f"{name} is '{shown(value)}', and not {known}"
    if "role" in columns and "split" in columns:
        for line, split, role in zip(lines, columns["split"], columns["role"], strict=True):
            if role and split in ("train", VALIDATION):
                yield (
                    line,
                    f"role is '{shown(role)}' in the split {split}; only test images have roles",
                )
    paths = columns.get("path", [])
    for line, path in zip(lines, paths, strict=bool(paths)):
        if OUTSIDE.match(path):
            yield line, f"path {shown(path)} leads out of the images' folder {place}"
        elif ADDRESS.match(path):
            yield line, f"path {shown(path)} is an address; images are read from the disk"
    if len(set(paths)) < len(paths):
        first_lines: dict[str, int] = {}
        for line, path in zip(lines, paths, strict=True):
            if path and first_lines.setdefault(path, line) != line:
                yield line, f"path {shown(path)} is on line {first_lines[path]} already"


def _wrong_classes(
    columns: dict[str, list[str]], table: Table, levels: Sequence[str]
) -> Iterator[Problem]:
    """Classes with two splits or two super-classes (the first such line), or with one image."""
    labels = columns.get("label", [])
    counts = Counter(labels)
    for name in ("split", *levels):
        column = columns.get(name, [])
        if len(set(zip(labels, column, strict=False))) <= len(counts):
            continue
        first: dict[str, tuple[str, int]] = {}
        reported = set()
        for line, label, value in zip(table.lines, labels, column, strict=True):
            first_value, first_line = first.setdefault(label, (value, line))
            if value != first_value and label not in reported:
                reported.add(label)
                yield (
                    line,
                    f"{name} of class '{shown(label)}' is '{shown(value)}', and "
                    f"'{shown(first_value)}' on line {first_line}",
                )
    if 1 in counts.values() and not table.problems:  # an unread line may hold another image
        # a line of too few or too many values counts too: its own problem is named
        elsewhere = {normalize_label(cell) for _, cells in table.uneven for cell in cells}
        for line, label in zip(table.lines, labels, strict=True):
            if label and counts[label] == 1 and label not in elsewhere:
                yield line, f"class '{shown(label)}' has only this image; a class needs two"


def _listing(names: Sequence[str]) -> str:
    """The first names of columns."""
    return some_of(names, SHOWN_NAMES, shown)


def draw_split(labels: Sequence[str], supers: Sequence[tuple[str, ...]], seed: int) -> list[str]:
    """The split of each image: half of the classes of each nearest super-class train.

    If a super-class has an odd number of classes, one more or one less trains, in turn. Digests
    order the classes: an arbitrary order that no version of a library can change.
    """
    group = {label: levels[:1] for label, levels in zip(labels, supers, strict=True)}
    shuffled = sorted(
        group, key=lambda label: (group[label], sha256(f"{seed} {label}".encode()).digest())
    )
    split = {label: SPLITS[place % 2] for place, label in enumerate(shuffled)}
    return [split[label] for label in labels]


def _check_complete(file: Path, splits: Iterable[str], roles: Iterable[str]) -> None:
    """Make sure that both splits have images, and that the test has queries and a gallery."""
    combinations = set(zip(splits, roles, strict=True))
    for split in SPLITS:
        if split not in {split for split, _ in combinations}:
            raise DatasetError(f"{file}: no class is in the split {split}.")
    test_roles = {role for split, role in combinations if split == "test"}
    for role, other in (("query", "gallery"), ("gallery", "query")):
        if role in test_roles and not test_roles & {other, "both"}:
            raise DatasetError(f"{file}: it has images with role {role}, and none with {other}.")
