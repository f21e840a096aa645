"""What archives say of their images: tables of text, and the images that they list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from dmlbench.datasets import DatasetError, Row, listed
from dmlbench.datasets.archives import read_member


def read_table(
    archive: Path,
    member: str = "",
    columns: int | None = None,
    skip: int = 0,
    separator: str | None = None,
) -> Iterator[tuple[str, list[str]]]:
    """The lines of a table, each as "archive: member, line 3" and its fields; empty lines left out.

    Args:
        archive: a zip or tar with the text file `member`, or the text file itself.
        columns: fields that each line must have; None: any number.
        skip: first lines that are no rows.
        separator: of the fields; None: white space.

    Raises DatasetError where the table cannot be read, is empty, or a line has other fields.
    """
    content = read_member(archive, member) if member else archive.read_bytes()
    place = f"{archive}: {member}, line" if member else f"{archive}, line"
    number = skip
    for number, line in enumerate(content.splitlines()[skip:], start=skip + 1):
        try:
            text = line.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise DatasetError(f"{place} {number}: this is not UTF-8: {error}") from None
        fields = text.split(separator)
        if not text:
            continue
        if columns not in (None, len(fields)):
            raise DatasetError(
                f"{place} {number}: it has {len(fields)} fields, expected {columns}: {text[:80]!r}"
            )
        yield f"{place} {number}", fields
    if number == skip:
        raise DatasetError(f"{place} {skip + 1}: the table ends before its first row")


def whole_number(text: str, where: str, least: int = 0, most: int | None = None) -> int:
    """`text` as a number from `least` to `most`. Raises DatasetError, naming the line `where`."""
    if not (text.isascii() and text.isdigit()):
        raise DatasetError(f"{where}: {text!r} is no whole number")
    number = int(text)
    if number < least or (most is not None and number > most):
        limits = f"{least} or more" if most is None else f"in {least} .. {most}"
        raise DatasetError(f"{where}: {number} is not {limits}")
    return number


def by_member(members: Iterable[tuple[str, Row]]) -> dict[str, Row]:
    """The rows by the archive's member that holds the image; a member may be listed once."""
    rows: dict[str, Row] = {}
    for member, row in members:
        if member in rows:
            raise DatasetError(
                f"{row.origin}: {member} is listed twice, first {rows[member].origin}"
            )
        rows[member] = row
    return rows


def check_splits(
    name: str, rows: Iterable[Row], expected: Mapping[str, Sequence[int]], where: object
) -> None:
    """Raise DatasetError, saying what differs, unless the rows have the `expected` [classes,
    images] of each split: known from the annotations, before hours of reading images."""
    images: Counter[str] = Counter()
    classes: dict[str, set[str]] = {split: set() for split in expected}
    for row in rows:
        images[row.split] += 1
        classes[row.split].add(row.class_name)
    check_counts(
        name,
        {
            f"{split}: {what}": (found, wanted)
            for split, counts in expected.items()
            for what, found, wanted in zip(
                ("classes", "images"), (len(classes[split]), images[split]), counts, strict=True
            )
        },
        where,
    )


def check_counts(name: str, counts: Mapping[str, tuple[int, int]], where: object) -> None:
    """Raise DatasetError, saying what differs, unless the numbers (found, expected) are equal."""
    if wrong := [
        f"{what}: found {found:,}, expected {expected:,}"
        for what, (found, expected) in counts.items()
        if found != expected
    ]:
        raise DatasetError(listed(f"{name}: {where} does not hold the official split", wrong))


def listed_images(
    archive: Path, members: Iterable[tuple[str, bytes]], rows: Mapping[str, Row]
) -> Iterator[tuple[Row, bytes]]:
    """The row and content of each member that has a row, in the order of the archive.

    Raises DatasetError at the end, naming the lines, if members with a row were not there.
    """
    missing = dict(rows)
    for member, content in members:
        if row := missing.pop(member, None):
            yield row, content
    if missing:
        lines = [f"{row.origin}: no {member}" for member, row in missing.items()]
        raise DatasetError(listed(f"{archive}: {len(lines)} listed images are not in it", lines))
