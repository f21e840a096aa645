"""Annotations in archives: text tables and their rows, and the counts of a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from dmlbench.datasets import Row
from dmlbench.datasets.archives.reading import read_member
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.text import count_of, listed


def read_table(
    archive: Path,
    member: str = "",
    columns: int | None = None,
    skip: int = 0,
    separator: str | None = None,
) -> Iterator[tuple[str, list[str]]]:
    """Yield each line of a table as ("archive: member, line 3", fields). Empty lines are left out.

    Args:
        archive: a zip or tar with the text file `member`, or the text file itself.
        member: name of the text file in the archive.
        columns: fields that each line must have; None: any number.
        skip: number of first lines that are no rows.
        separator: of the fields; None: white space.

    Raises:
        DatasetError: the table cannot be read or is empty, or a line has other fields.
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
                f"{place} {number}: it has {count_of(len(fields), 'field')}, expected {columns}: "
                f"{text[:80]!r}"
            )
        yield f"{place} {number}", fields
    if number == skip:
        raise DatasetError(f"{place} {skip + 1}: the table ends before its first row")


def whole_number(text: str, where: str, least: int = 0, most: int | None = None) -> int:
    """Parse `text` as a whole number.

    Args:
        text: ASCII digits.
        where: the line, for the message.
        least: smallest number that is allowed.
        most: largest number that is allowed; None: any.

    Raises:
        DatasetError: it is no whole number, or out of bounds.

    >>> whole_number("12", "list.txt, line 3")
    12
    """
    if not (text.isascii() and text.isdigit()):
        raise DatasetError(f"{where}: {text!r} is no whole number")
    number = int(text)
    if number < least or (most is not None and number > most):
        limits = f"{least} or more" if most is None else f"in {least} .. {most}"
        raise DatasetError(f"{where}: {number} is not {limits}")
    return number


def by_member(rows: Iterable[tuple[str, Row]]) -> dict[str, Row]:
    """The rows by the archive's member that holds the image.

    Raises:
        DatasetError: a member is listed twice.
    """
    members: dict[str, Row] = {}
    for member, row in rows:
        if member in members:
            raise DatasetError(
                f"{row.origin}: {member} is listed twice, first {members[member].origin}"
            )
        members[member] = row
    return members


def check_splits(
    name: str,
    rows: Iterable[Row],
    expected: Mapping[str, Sequence[int]],
    where: object,
    remarks: Sequence[str] = (),
) -> None:
    """Check the counts of each split in the annotations, before hours of reading images.

    Args:
        name: the data set.
        rows: all of its rows.
        expected: [classes, images] of each split.
        where: the file of the annotations.
        remarks: for the message, what may have caused a difference.

    Raises:
        DatasetError: counts differ; the text says which.
    """
    images: Counter[str] = Counter()
    classes: dict[str, set[str]] = {split: set() for split in expected}
    for row in rows:
        images[row.split] += 1
        classes[row.split].add(row.class_name)
    counts = {}
    for split, (expected_classes, expected_images) in expected.items():
        counts[f"{split}: classes"] = len(classes[split]), expected_classes
        counts[f"{split}: images"] = images[split], expected_images
    check_counts(name, counts, where, remarks)


def check_counts(
    name: str,
    counts: Mapping[str, tuple[int, int]],
    where: object,
    remarks: Sequence[str] = (),
) -> None:
    """Check that both numbers of each of `counts`, (actual, expected), are equal.

    Raises:
        DatasetError: counts differ; the text says which, and ends with `remarks`.
    """
    if differences := [
        f"{noun}: found {actual:,}, expected {expected:,}"
        for noun, (actual, expected) in counts.items()
        if actual != expected
    ]:
        title = f"{name}: {where} does not hold the official split"
        raise DatasetError(listed(title, [*differences, *remarks]))
