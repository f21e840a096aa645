"""Reading Parquet files with images, as the library `datasets` writes them.

An image is a struct of `bytes` and `path`, or its bytes alone. The names of the classes are in the
metadata of the schema, under the key "huggingface". Only the columns that are needed are read, and
images a few at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dmlbench.datasets.names import normalize_label
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.text import did_you_mean, listed

MAX_BATCH = 64
"""Images that are read at a time."""
BUFFER = 2**20
"""Bytes of a column that are read from the disk at a time. Decoded is a page at a time, and writers
often make one page of a row group: so memory grows with the row groups, and not with the file."""
LABEL_NAMES = ("label", "labels", "class", "class_name", "category", "target", "fine_label")
"""Columns that hold the class, if the metadata name none."""
SPLIT = "split"
"""The column that says to which part a row belongs."""
GIT_LFS = b"version https://git-lfs"


class Columns(NamedTuple):
    """The columns of a file that a data set needs."""

    image: str
    label: str
    levels: tuple[str, ...]
    split: bool
    """Whether there is a column `split`."""


class Labels(NamedTuple):
    """What the rows of a file say about their images."""

    paths: list[str]
    """"" where the file has no path."""
    labels: list[str]
    levels: list[tuple[str, ...]]
    parts: list[str] | None
    """The column `split`; None if there is none."""
    numbered: tuple[bool, ...]
    """Whether the column of the classes, and that of each level, holds numbers without names."""


@contextmanager
def open_file(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file.

    Raises:
        DatasetError: it cannot be read; also while the caller reads.
    """
    try:
        with pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        with suppress(OSError), path.open("rb") as raw:
            if raw.read(len(GIT_LFS)) == GIT_LFS:
                raise DatasetError(
                    f"{path} is a pointer of Git LFS and not the file: run `git lfs pull`."
                ) from None
        if number := getattr(error, "errno", None):
            raise DatasetError(f"{path}: cannot read it: {os.strerror(number)}.") from error
        reason = " ".join(str(error).split()).rstrip(".")
        raise DatasetError(f"{path}: this is no whole Parquet file: {reason}.") from error


def choose_columns(
    path: Path, image: str | None, label: str | None, levels: Sequence[str]
) -> Columns:
    """The columns of the file `path`: those that are named, else the only ones that fit.

    Raises:
        DatasetError: a column is missing, is of another kind, or several fit.
    """
    with open_file(path) as file:
        schema = file.schema_arrow
    features = _features(schema)
    images = [field.name for field in schema if _is_image(field.type)]
    marked = [name for name in images if features.get(name, {}).get("_type") == "Image"]
    classes = [name for name in schema.names if "names" in features.get(name, {})]
    columns = Columns(
        _choose(path, schema, "image", image, marked or images, "image"),
        _choose(
            path,
            schema,
            "label",
            label,
            [name for name in classes if name not in levels]
            or [name for name in schema.names if name.casefold() in LABEL_NAMES],
            "class",
        ),
        tuple(levels),
        SPLIT in schema.names and SPLIT not in (label, *levels),
    )
    if columns.image not in images:
        found = schema.field(columns.image).type
        raise DatasetError(f"image: column {columns.image} of {path} is {found}, and no image.")
    for name in (columns.label, *levels):
        _check_label_type(path, schema, name)
    return columns


def read_labels(path: Path, columns: Columns) -> Labels:
    """What the rows of the file `path` say about their images, without reading these.

    Raises:
        DatasetError: a row has no label, or a column is missing.
    """
    names = [columns.label, *columns.levels, *([SPLIT] if columns.split else [])]
    with open_file(path) as file:
        schema, count = file.schema_arrow, file.metadata.num_rows
        features = _features(schema)
        for name in (columns.image, *names):
            if name not in schema.names:
                raise DatasetError(_no_column(path, schema, "files", name))
        image = schema.field(columns.image).type
        has_path = pa.types.is_struct(image) and image.get_field_index("path") >= 0
        leaf = [f"{columns.image}.path"] if has_path else []
        table = file.read([*dict.fromkeys(names), *leaf])
        problems: list[str] = []
        texts = {
            name: _texts(table[name], features.get(name, {}), path, name, problems)
            for name in dict.fromkeys(names)
        }
        if problems:
            raise DatasetError(listed(f"{path}: rows without a class", problems))
        paths = [""] * count
        if has_path:
            structs = table[columns.image].combine_chunks()
            paths = [value or "" for value in pc.struct_field(structs, "path").to_pylist()]
    levels = [*zip(*(texts[name] for name in columns.levels), strict=True)] or [()] * count
    numbered = tuple(
        pa.types.is_integer(schema.field(name).type) and not features.get(name, {}).get("names")
        for name in (columns.label, *columns.levels)
    )
    parts = texts[SPLIT] if columns.split else None
    return Labels(paths, texts[columns.label], levels, parts, numbered)


def read_images(path: Path, image: str) -> Iterator[bytes | None]:
    """The encoded image of each row of the file `path`; None where it has no bytes."""
    with open_file(path) as file:
        is_struct = pa.types.is_struct(file.schema_arrow.field(image).type)
        column = f"{image}.bytes" if is_struct else image
        for batch in file.iter_batches(MAX_BATCH, columns=[column]):
            array = batch.column(0)
            yield from (pc.struct_field(array, "bytes") if is_struct else array).to_pylist()


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """What the library `datasets` notes about each column; {} if it did not write the file."""
    try:
        note = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = note["info"]["features"]
        return {name: value for name, value in features.items() if isinstance(value, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_image(kind.field(place).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _choose(
    path: Path,
    schema: pa.Schema,
    option: str,
    named: str | None,
    fitting: Sequence[str],
    noun: str,
) -> str:
    if named is not None:
        if named not in schema.names:
            raise DatasetError(_no_column(path, schema, option, named))
        return named
    if len(fitting) != 1:
        found = f"{', '.join(fitting)} may be it" if fitting else f"no column is the {noun}"
        raise DatasetError(
            f"{option}: name the column of the {noun} in {path}: {found}; its columns are "
            f"{', '.join(schema.names)}."
        )
    return fitting[0]


def _no_column(path: Path, schema: pa.Schema, option: str, name: str) -> str:
    return f"{option}: {path} has no column '{name}'. {did_you_mean(name, schema.names)}"


def _check_label_type(path: Path, schema: pa.Schema, name: str) -> None:
    if name not in schema.names:
        raise DatasetError(_no_column(path, schema, "levels", name))
    kind = schema.field(name).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean)
    if not any(test(kind) for test in tests):
        raise DatasetError(f"{path}: column {name} is {kind}, and neither text nor whole numbers.")


def _texts(
    column: pa.ChunkedArray, feature: Mapping[str, Any], path: Path, name: str, problems: list[str]
) -> list[str]:
    """The names of a column of labels."""
    values = column.to_pylist()
    names = feature.get("names") or []
    names = [*(names.values() if isinstance(names, Mapping) else names)]  # {"0": "apple"}
    texts = []
    for row, value in enumerate(values):
        known = bool(names) and isinstance(value, int)
        if value is None or value == "" or (known and not 0 <= value < len(names)):
            problems.append(f"row {row}: {name} is {'empty' if value in (None, '') else value}")
            texts.append("")
        else:
            texts.append(normalize_label(str(names[value] if known else value)))
    return texts
