"""The tables of a store: index, protocols, pairs. In Arrow's memory and in steps of some thousand
rows, as the Python objects of half a million images would take a gigabyte."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import chain, islice
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc

from dmlbench.datasets import DatasetError, Row
from dmlbench.datasets.decoding import Packed

STEP = 10_000
"""Rows that are Python objects at a time."""
PROTOCOLS = pa.schema(
    [
        ("protocol", pa.string()),
        ("id", pa.int32()),
        ("role", pa.string()),
        ("repetition", pa.int32()),
    ]
)
PAIRS = pa.schema(
    [("first", pa.int32()), ("second", pa.int32()), ("same", pa.bool_()), ("fold", pa.int32())]
)


def collect(images: Iterable[Packed], levels: int) -> pa.Table:
    """All images in the order of their ids, which is that of their paths: the columns of
    index.parquet, with `bytes`, and with `role`, which is for the protocols."""
    names = [f"level_{level + 1}" for level in range(levels)]
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("path", "class_name", *names, "split", "role")),
            *((name, pa.int32()) for name in ("height", "width", "bytes")),
            ("digest", pa.string()),
        ]
    )
    table = _table(
        (
            (row.path, row.class_name, *row.levels, row.split, row.role, *rest)
            for row, *rest in images
        ),
        schema,
    )
    ends = pc.cumulative_sum(table["bytes"].cast(pa.int64()))
    table = table.append_column("offset", pc.subtract(ends, table["bytes"]))
    table = table.take(pc.sort_indices(table["path"])).combine_chunks()
    classes = pc.unique(table["class_name"])
    label = pc.index_in(table["class_name"], classes.take(pc.sort_indices(classes)))
    ids = pa.array(range(len(table)), pa.int32())
    first = {"id": ids, "path": table["path"], "label": label.cast(pa.int32())}
    last = ("class_name", *names, "split", "height", "width", "offset", "bytes", "digest", "role")
    return pa.table(first | {name: table[name] for name in last})


def check(type: str, rows: Sequence[Row], declared: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """[classes, images] of each split, after making sure that they are the declared ones, that
    paths are unique, and that every class has one split and one super-class at each level."""
    if not rows:
        raise DatasetError(f"{type}: it has no images")
    places: dict[str, tuple[tuple[str, ...], str]] = {}
    images: Counter[str] = Counter()
    twice, before = [], None
    for row in rows:
        place = row.levels, row.split
        if places.setdefault(row.class_name, place) != place:
            raise DatasetError(
                f"{type}: class {row.class_name} is both in {places[row.class_name]} and {place}"
            )
        if row.path == before:
            twice.append(row.path)
        images[row.split] += 1
        before = row.path
    if twice:
        raise DatasetError(f"{type}: found twice: {', '.join(twice[:5])}")
    classes = Counter(split for _, split in places.values())
    counts = {split: [classes[split], images[split]] for split in sorted(classes)}
    wrong = [
        f"  {split}: found {classes[split]} classes and {images[split]} images, "
        f"expected {expected[0]} and {expected[1]}"
        for split, expected in declared.items()
        if [classes[split], images[split]] != list(expected)
    ]
    if wrong:
        raise DatasetError(
            "\n".join([f"{type}: the archives do not hold the official split", *wrong])
        )
    return counts


class Rows(Sequence[Row]):
    """The rows of a table of images by their ids, made when they are asked for."""

    def __init__(self, table: pa.Table) -> None:
        levels = sorted(name for name in table.column_names if name.startswith("level_"))
        self._table = table.select(["path", "class_name", *levels, "split", "role"])

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Row]:
        for batch in self._table.to_batches(max_chunksize=STEP):
            for path, name, *levels, split, role in zip(*batch.to_pydict().values(), strict=True):
                yield Row(path, name, tuple(levels), split, role)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        path, name, *levels, split, role = (column[place].as_py() for column in self._table.columns)
        return Row(path, name, tuple(levels), split, role)


def protocols(rows: Sequence[Row], own: Iterable[tuple[str, int, str, int]] | None) -> pa.Table:
    """protocols.parquet: a data set's own, or plain zero-shot retrieval, in which every test image
    is a query against all the others, or as the rows' roles say."""
    if own is None:
        tests = ((number, row) for number, row in enumerate(rows) if row.split == "test")
        own = (("zero_shot", number, row.role, 0) for number, row in tests)
    return _of_images(_table(own, PROTOCOLS), ["id"], len(rows))


def pairs(rows: Sequence[Row], found: Iterable[tuple[int, int, bool, int]]) -> pa.Table:
    """pairs.parquet of a data set for verification."""
    return _of_images(_table(found, PAIRS), ["first", "second"], len(rows))


def content(index: pa.Table, *others: pa.Table) -> str:
    """Digest of a store: of its rows as JSON (the images' digests are among them), so it is the
    same whatever version of pyarrow wrote the files, and in whatever order the images arrived."""
    total = sha256()
    for table in (index.drop_columns(["offset"]), *others):
        for batch in table.to_batches(max_chunksize=STEP):
            for row in batch.to_pylist():
                total.update(json.dumps(row).encode())
    return total.hexdigest()


def _table(rows: Iterable[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    def batches() -> Iterator[pa.RecordBatch]:
        todo = iter(rows)
        for first in todo:
            columns = zip(*chain([first], islice(todo, STEP - 1)), strict=True)
            yield pa.record_batch(
                [
                    pa.array(column, kind)
                    for column, kind in zip(columns, schema.types, strict=True)
                ],
                schema=schema,
            )

    return pa.Table.from_batches(batches(), schema)


def _of_images(table: pa.Table, columns: Sequence[str], images: int) -> pa.Table:
    for name in columns:
        bounds = pc.min_max(table[name]).as_py()
        if len(table) and not 0 <= bounds["min"] <= bounds["max"] < images:
            raise DatasetError(f"a protocol or pair names images {bounds}, of 0..{images - 1}")
    return table
