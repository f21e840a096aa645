"""The text of a table, as spreadsheets and programs write it, into rows of cells.

Excel writes semicolons where a comma separates decimals, "Unicode text" is UTF-16 with tabs, and
pandas writes an index without a name. These are read. A file of another kind is refused with what
it is.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from dmlbench.datasets.names import normalize_label
from dmlbench.utils.errors import DatasetError

SEPARATORS = (",", ";", "\t", "|")
BYTE_ORDER_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
OTHER_FILES = {
    b"PK\3\4": "an Excel file or another zip: save the sheet as CSV, or name a zip with a CSV .zip",
    b"\xd0\xcf\x11\xe0": "an old Excel file: save the sheet as CSV",
    b"PAR1": "a Parquet file: write `type: parquet`",
    b"\x1f\x8b": "compressed with gzip: unpack it",
    b"{": "JSON",
    b"<": "HTML or XML",
}
"""What is found under the name of a CSV, by its first bytes."""
CSV_ERRORS = {
    "unexpected end of data": 'a quote (") is opened here and never closed',
    "field larger than field limit (131072)": (
        'a value has more than 131,072 characters; is a quote (") opened here and never closed?'
    ),
}
"""Texts of the parser of the standard library that say too little."""
UNNAMED = re.compile(r"|Unnamed: \d+")
"""A column without a name; pandas calls it so when it reads a table that pandas wrote."""
SHOWN = 80
"""Most characters of a value that a message shows."""
Problem = tuple[int, str]
"""Line number, and the problem in that line."""


class Table(NamedTuple):
    """The cells of a table, without white space around them."""

    header: list[str]
    header_line: int
    lines: list[int]
    """The line in which each row begins."""
    rows: list[list[str]]
    """Each has as many cells as the header."""
    uneven: list[tuple[int, list[str]]]
    """Line and cells of the rows with more or fewer cells."""
    problems: list[Problem]
    """Lines that are no CSV."""


def read_csv_text(file: Path, content: bytes, known: Collection[str]) -> Table:
    """Parse the content of a CSV.

    An index without a name in the first column, empty cells after the last column, and empty lines
    are left out.

    Args:
        file: for messages.
        content: of the file.
        known: names of columns, by which the separator is recognized.

    Raises:
        DatasetError: it is no text in UTF-8 or UTF-16, or has no rows.
    """
    problems: list[Problem] = []
    numbered = [*_parse(_decode(file, content), known, problems)]
    if len(numbered) + len(problems) < 2:
        raise DatasetError(f"{file}: it has no rows below a line of column names.")
    (header_line, header), *rows = numbered or [(1, [""])]
    header = [*map(normalize_label, header)]
    while len(header) > 1 and not header[-1]:
        header.pop()
    has_index = len(header) > 1 and UNNAMED.fullmatch(header[0])
    table = Table(header[1:] if has_index else header, header_line, [], [], [], problems)
    for line, row in rows:
        while len(row) > len(header) and not row[-1]:
            row.pop()
        cells = row[1:] if has_index else row
        if len(row) == len(header):
            table.lines.append(line)
            table.rows.append(cells)
        else:
            table.uneven.append((line, cells))
    return table


def _decode(file: Path, content: bytes) -> str:
    """The text of a file in UTF-8, or in another encoding that begins with its mark."""
    for start, description in OTHER_FILES.items():
        if content.startswith(start):
            raise DatasetError(f"{file}: this is no CSV but {description}.")
    marks = (name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark))
    encoding = next(marks, "utf-8-sig")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DatasetError(
            f"{file}: line {line}: this is not {encoding.removesuffix('-sig').upper()} "
            f"({error.reason}: {content[error.start : error.start + 1].hex()}). Save the table as "
            f"UTF-8 (Excel: 'CSV UTF-8')."
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DatasetError(
            f"{file}: line {line}: it holds NUL characters, as UTF-16 without its mark does. Save "
            f"the table as UTF-8."
        )
    return text


def _parse(
    text: str, known: Collection[str], problems: list[Problem]
) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the cells of each row that is not empty; add to `problems`."""
    stream = io.StringIO(text, newline="")
    offset = 0
    if declared := re.match(r"sep=(.)\r?\n", text):  # Excel's own line about the separator
        stream.readline()
        offset, separator = 1, declared[1]
    else:
        separator = _separator(text, known)
    reader = csv.reader(stream, delimiter=separator, strict=True)
    while True:
        line = reader.line_num + offset + 1
        try:
            cells = [*map(str.strip, next(reader))]
        except StopIteration:
            return
        except csv.Error as error:
            problems.append((line, CSV_ERRORS.get(str(error), str(error))))
            continue
        if any(cells):
            yield line, cells


def _separator(text: str, known: Collection[str]) -> str:
    """The separator by which the first line has most known columns, or most columns."""
    first = next((line for line in text.splitlines() if line.strip()), "")

    def score(separator: str) -> tuple[int, int]:
        names = [name.strip(' "') for name in first.split(separator)]
        return len({*names} & {*known}), len(names)

    return max(SEPARATORS, key=score)


def shown(value: str) -> str:
    """A value for a message: in one line, and not too long."""
    text = repr(value)[1:-1]
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
