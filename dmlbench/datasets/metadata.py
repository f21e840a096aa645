"""Read a CSV of images into checked rows. One message names all problems, each with its line.

The first line names the columns, in any order:

- path: of an image, relative to the CSV's folder (or to `images`, if the study gives that);
- label: its class;
- split (optional): train or test, the same for all images of a class. Without this column half of
  the classes of each super-class (of the nearest level) train, drawn by a seed;
- role (optional, needs split): query, gallery or both, for test images; empty: both;
- super-classes, as the study names them under `levels`.

Any other column must be listed under `ignore`: otherwise a misspelt "split" would pass unnoticed.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path, PurePosixPath

from dmlbench.datasets import Row
from dmlbench.datasets.archives.reading import open_zip, read_member
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.text import listed

SPLITS = ("train", "test")
ROLES = ("query", "gallery", "both", "")
Problem = tuple[int, str]
"""Line number, and the problem in that line."""


def read_rows(
    file: Path, levels: Sequence[str], ignore: Sequence[str], split_seed: int
) -> list[Row]:
    """The rows of a CSV, sorted by path.

    Args:
        file: the CSV, or a zip with one CSV in it.
        levels: columns of super-classes, the nearest to the class first.
        ignore: columns without meaning here.
        split_seed: seed of the split, if the CSV has no column `split`.

    Raises:
        DatasetError: lines are wrong; the text names them.
    """
    columns, lines = _read_columns(file, levels, ignore)
    problems = [*_wrong_values(columns, lines, levels), *_wrong_classes(columns, lines, levels)]
    if problems:
        texts = [f"line {line}: {text}" for line, text in sorted(problems)]
        raise DatasetError(listed(f"{file}: {len(texts)} of its rows are wrong", texts))
    labels = columns["label"]
    supers = [*zip(*(columns[name] for name in levels), strict=True)] or [()] * len(labels)
    splits = columns.get("split") or _draw_split(labels, supers, split_seed)
    roles = [role or "both" for role in columns.get("role") or [""] * len(labels)]
    _check_complete(file, splits, roles)
    origins = [f"{file}, line {line}" for line in lines]
    cells = zip(columns["path"], labels, supers, splits, roles, origins, strict=True)
    return sorted(Row(*row) for row in cells)


def is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def csv_in_zip(path: Path) -> str:
    """The name of the one CSV in a zip.

    Raises:
        DatasetError: the zip holds no CSV, or several.
    """
    with open_zip(path) as (_, members):
        names = [name for name in members if name.lower().endswith(".csv")]
    if len(names) != 1:
        raise DatasetError(
            f"{path}: it holds {', '.join(names) or 'no CSV'}, and not one CSV. "
            f"Put the CSV next to it as `file`, and name the zip under `images`."
        )
    return names[0]


def _read_text(file: Path) -> str:
    content = read_member(file, csv_in_zip(file)) if is_zip(file) else file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{file}: line {line}: this is not UTF-8: {error.reason}.") from None


def _read_columns(
    file: Path, levels: Sequence[str], ignore: Sequence[str]
) -> tuple[dict[str, list[str]], list[int]]:
    """The columns by name, without the ignored ones, and the line number of each row."""
    reader = csv.reader(io.StringIO(_read_text(file), newline=""), strict=True)
    try:
        numbered = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise DatasetError(f"{file}: line {reader.line_num}: {error}.") from None
    if len(numbered) < 2:
        raise DatasetError(f"{file}: it has no rows below a line of column names.")
    (_, header), *rows = numbered
    header = [name.strip() for name in header]
    if problems := _wrong_header(header, levels, ignore):
        raise DatasetError(listed(f"{file}: its columns are {', '.join(header)}", problems))
    lines = [line for line, _ in rows]
    if uneven := [(line, len(row)) for line, row in rows if len(row) != len(header)]:
        texts = [f"line {line}: {n} values for {len(header)} columns" for line, n in uneven]
        raise DatasetError(listed(f"{file}: {len(texts)} of its rows are wrong", texts))
    cells = zip(*(row for _, row in rows), strict=True)
    columns = {
        name: [*map(str.strip, column)]
        for name, column in zip(header, cells, strict=True)
        if name not in ignore
    }
    # ./a.png is a.png
    columns["path"] = [path and str(PurePosixPath(path)) for path in columns["path"]]
    return columns, lines


def _wrong_header(header: Sequence[str], levels: Sequence[str], ignore: Sequence[str]) -> list[str]:
    known = ["path", "label", "split", "role", *levels, *ignore]
    problems = []
    for name, count in Counter(header).items():
        if count > 1:
            problems.append(f"column '{name}' is there twice")
        if name not in known:
            near = get_close_matches(name, known, n=1)
            guess = f" Did you mean '{near[0]}'?" if near else ""
            problems.append(
                f"column '{name}' is unknown.{guess} Name super-classes under `levels` of the "
                f"study's entry, and columns that do not matter under `ignore`"
            )
    for name in ("path", "label", *levels):
        if name not in header:
            problems.append(f"column '{name}' is missing")
        if name in ignore:
            problems.append(f"column '{name}' cannot be ignored")
    if "role" in header and "split" not in header:
        problems.append("column 'role' needs a column 'split'")
    return problems


def _wrong_values(
    columns: dict[str, list[str]], lines: Sequence[int], levels: Sequence[str]
) -> Iterator[Problem]:
    """Problems of one cell, or of the column of paths."""
    for name in ("path", "label", *levels):
        if "" in columns[name]:
            for line, value in zip(lines, columns[name], strict=True):
                if not value:
                    yield line, f"{name} is empty"
    for name, allowed in (("split", SPLITS), ("role", ROLES)):
        if not set(columns.get(name, ())) <= {*allowed}:
            for line, value in zip(lines, columns[name], strict=True):
                if value not in allowed:
                    known = " or ".join(filter(None, allowed))
                    yield line, f"{name} is '{value}', and not {known}"
    if "role" in columns:
        for line, split, role in zip(lines, columns["split"], columns["role"], strict=True):
            if role and split == "train":
                yield line, f"role is '{role}' in the split train; only test images have roles"
    paths = columns["path"]
    for line, path in zip(lines, paths, strict=True):
        if path.startswith("/") or (".." in path and ".." in PurePosixPath(path).parts):
            yield line, f"path {path} leads out of the images' folder"
    if len(set(paths)) < len(paths):
        first_lines: dict[str, int] = {}
        for line, path in zip(lines, paths, strict=True):
            if path and first_lines.setdefault(path, line) != line:
                yield line, f"path {path} is on line {first_lines[path]} already"


def _wrong_classes(
    columns: dict[str, list[str]], lines: Sequence[int], levels: Sequence[str]
) -> Iterator[Problem]:
    """Classes with two splits or two super-classes (the first such line), or with one image."""
    labels = columns["label"]
    counts = Counter(labels)
    for name in ("split", *levels):
        column = columns.get(name, [])
        if len(set(zip(labels, column, strict=False))) <= len(counts):
            continue
        first: dict[str, tuple[str, int]] = {}
        reported = set()
        for line, label, value in zip(lines, labels, column, strict=True):
            first_value, first_line = first.setdefault(label, (value, line))
            if value != first_value and label not in reported:
                reported.add(label)
                yield (
                    line,
                    f"{name} of class '{label}' is '{value}', and '{first_value}' on line "
                    f"{first_line}",
                )
    if 1 in counts.values():
        for line, label in zip(lines, labels, strict=True):
            if label and counts[label] == 1:
                yield line, f"class '{label}' has only this image; a class needs two"


def _draw_split(labels: Sequence[str], supers: Sequence[tuple[str, ...]], seed: int) -> list[str]:
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
