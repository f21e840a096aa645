"""A CSV of images -> checked rows. What is wrong is said with its line, all in one message.

The first line names the columns, in any order:

- path: of an image, relative to the CSV's folder (or to `images`, where the study gives that);
- label: its class;
- split (optional): train or test, the same for all images of a class. Without this column half of
  the classes of each super-class (of the nearest level) train, drawn by a seed;
- role (optional, beside split): query, gallery or both, of test images; empty: both;
- super-classes, as the study names them under `levels`.

Another column must stand under `ignore`: a misspelt "split" must not pass for a remark.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path, PurePosixPath

from dmlbench.datasets import DatasetError, Row, listed
from dmlbench.datasets.archives import open_zip, read_member

SPLITS = ("train", "test")
ROLES = ("query", "gallery", "both", "")
Problem = tuple[int, str]
"""Line and what is wrong there."""


def read_rows(
    file: Path, levels: Sequence[str], ignore: Sequence[str], split_seed: int
) -> list[Row]:
    """Rows of the CSV `file`, or of the one in the zip `file`, in the order of their paths.

    Raises DatasetError with the lines that are wrong.
    """
    columns, lines = _columns(file, levels, ignore)
    problems = [*_wrong_values(columns, lines, levels), *_wrong_classes(columns, lines, levels)]
    if problems:
        texts = [f"line {line}: {text}" for line, text in sorted(problems)]
        raise DatasetError(listed(f"{file}: {len(texts)} of its rows are wrong", texts))
    labels = columns["label"]
    supers = [*zip(*(columns[name] for name in levels), strict=True)] or [()] * len(labels)
    splits = columns.get("split") or _draw(labels, supers, split_seed)
    roles = [role or "both" for role in columns.get("role") or [""] * len(labels)]
    _whole(file, splits, roles)
    origins = [f"{file}, line {line}" for line in lines]
    cells = zip(columns["path"], labels, supers, splits, roles, origins, strict=True)
    return sorted(Row(*row) for row in cells)


def is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def csv_in_zip(path: Path) -> str:
    """Name of the one CSV in a zip."""
    with open_zip(path) as (_, members):
        names = [name for name in members if name.lower().endswith(".csv")]
    if len(names) != 1:
        raise DatasetError(
            f"{path}: it holds {', '.join(names) or 'no CSV'}, and not one CSV. "
            f"Put the CSV beside it as `file`, and name the zip under `images`."
        )
    return names[0]


def _text(file: Path) -> str:
    content = read_member(file, csv_in_zip(file)) if is_zip(file) else file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{file}: line {line}: this is not UTF-8: {error.reason}.") from None


def _columns(
    file: Path, levels: Sequence[str], ignore: Sequence[str]
) -> tuple[dict[str, list[str]], list[int]]:
    """The columns that are used, by name, and the line of each row."""
    reader = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
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
            problems.append(f"column '{name}' stands there twice")
        if name not in known:
            near = get_close_matches(name, known, n=1)
            guess = f" Did you mean '{near[0]}'?" if near else ""
            problems.append(
                f"column '{name}' is unknown.{guess} Super-classes are named under `levels` of the "
                f"study's entry, what does not matter under `ignore`"
            )
    for name in ("path", "label", *levels):
        if name not in header:
            problems.append(f"column '{name}' is missing")
        if name in ignore:
            problems.append(f"column '{name}' cannot be ignored")
    if "role" in header and "split" not in header:
        problems.append("column 'role' needs a column 'split' beside it")
    return problems


def _wrong_values(
    columns: dict[str, list[str]], lines: Sequence[int], levels: Sequence[str]
) -> Iterator[Problem]:
    """What can be seen in one cell, or in a column of paths."""
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
                yield line, f"role is '{role}' in the split train; roles are of test images"
    paths = columns["path"]
    for line, path in zip(lines, paths, strict=True):
        if path.startswith("/") or (".." in path and ".." in PurePosixPath(path).parts):
            yield line, f"path {path} leads out of the images' folder"
    if len(set(paths)) < len(paths):
        first: dict[str, int] = {}
        for line, path in zip(lines, paths, strict=True):
            if path and first.setdefault(path, line) != line:
                yield line, f"path {path} stands on line {first[path]} already"


def _wrong_classes(
    columns: dict[str, list[str]], lines: Sequence[int], levels: Sequence[str]
) -> Iterator[Problem]:
    """Classes in two places, the first such line of each, and classes of one image."""
    labels = columns["label"]
    counts = Counter(labels)
    for name in ("split", *levels):
        column = columns.get(name, [])
        if len(set(zip(labels, column, strict=False))) <= len(counts):
            continue
        first: dict[str, tuple[str, int]] = {}
        seen = set()
        for line, label, value in zip(lines, labels, column, strict=True):
            before, where = first.setdefault(label, (value, line))
            if value != before and label not in seen:
                seen.add(label)
                yield (
                    line,
                    f"{name} of class '{label}' is '{value}', and '{before}' on line {where}",
                )
    if 1 in counts.values():
        for line, label in zip(lines, labels, strict=True):
            if label and counts[label] == 1:
                yield line, f"class '{label}' has this image alone; a class needs two"


def _draw(labels: Sequence[str], supers: Sequence[tuple[str, ...]], seed: int) -> list[str]:
    """Half of the classes of each nearest super-class train; of an odd number, now one more, now
    one less. By digests, an order by chance that no version of a library can change."""
    group = {label: levels[:1] for label, levels in zip(labels, supers, strict=True)}
    shuffled = sorted(
        group, key=lambda label: (group[label], sha256(f"{seed} {label}".encode()).digest())
    )
    split = {label: SPLITS[place % 2] for place, label in enumerate(shuffled)}
    return [split[label] for label in labels]


def _whole(file: Path, splits: Iterable[str], roles: Iterable[str]) -> None:
    """Make sure that there is something to learn from, to search for, and to search in."""
    found = set(zip(splits, roles, strict=True))
    for split in SPLITS:
        if split not in {split for split, _ in found}:
            raise DatasetError(f"{file}: no class is in the split {split}.")
    found_roles = {role for split, role in found if split == "test"}
    for role, other in (("query", "gallery"), ("gallery", "query")):
        if role in found_roles and not found_roles & {other, "both"}:
            raise DatasetError(f"{file}: it has images with role {role}, and none with {other}.")
