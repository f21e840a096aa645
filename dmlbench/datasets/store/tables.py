"""The tables of a store: index, protocols, pairs.

They are built in Arrow's memory, some thousand rows at a time: the Python objects of half a million
images would take a gigabyte.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import chain, islice
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc

from dmlbench.datasets import Row
from dmlbench.datasets.decoding import PackedImage
from dmlbench.datasets.store.format import ZERO_SHOT
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.text import count_of

BATCH_ROWS = 10_000
"""Rows that are Python objects at the same time."""
PROTOCOL_SCHEMA = pa.schema(
    [
        ("protocol", pa.string()),
        ("id", pa.int32()),
        ("role", pa.string()),
        ("repetition", pa.int32()),
    ]
)
PAIR_SCHEMA = pa.schema(
    [("first", pa.int32()), ("second", pa.int32()), ("same", pa.bool_()), ("fold", pa.int32())]
)


def build_index(images: Iterable[PackedImage], levels: int) -> pa.Table:
    """The table of all images in the order of their ids, which is the order of their paths.

    It has the columns of index.parquet, with `bytes`, and with `role`, which the protocols need.

    Args:
        images: in the order of their bytes in images.bin.
        levels: number of levels of super-classes.
    """
    names = [f"level_{level + 1}" for level in range(levels)]
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("path", "class_name", *names, "split", "role")),
            *((name, pa.int32()) for name in ("height", "width", "bytes")),
            ("digest", pa.string()),
        ]
    )
    cells = (
        (row.path, row.class_name, *row.levels, row.split, row.role, *rest) for row, *rest in images
    )
    table = _to_table(cells, schema)
    ends = pc.cumulative_sum(table["bytes"].cast(pa.int64()))
    table = table.append_column("offset", pc.subtract(ends, table["bytes"]))
    table = table.take(pc.sort_indices(table["path"])).combine_chunks()
    classes = pc.unique(table["class_name"])
    label = pc.index_in(table["class_name"], classes.take(pc.sort_indices(classes)))
    ids = pa.array(range(len(table)), pa.int32())
    first = {"id": ids, "path": table["path"], "label": label.cast(pa.int32())}
    last = ("class_name", *names, "split", "height", "width", "offset", "bytes", "digest", "role")
    return pa.table(first | {name: table[name] for name in last})


def count_splits(
    type: str, rows: Sequence[Row], declared: Mapping[str, Sequence[int]]
) -> dict[str, list[int]]:
    """Count [classes, images] of each split, and check the rows.

    Args:
        type: the data set, for messages.
        rows: sorted by path.
        declared: [classes, images] of each split that the data set declares.

    Raises:
        DatasetError: there are no rows, a path is there twice, a class has two splits or two
            super-classes at one level, or the counts are not the declared ones.
    """
    if not rows:
        raise DatasetError(f"{type}: it has no images")
    places: dict[str, tuple[tuple[str, ...], str]] = {}
    images: Counter[str] = Counter()
    duplicates, previous = [], None
    for row in rows:
        place = row.levels, row.split
        if places.setdefault(row.class_name, place) != place:
            raise DatasetError(
                f"{type}: class {row.class_name} is both in {places[row.class_name]} and {place}"
            )
        if row.path == previous:
            duplicates.append(row.path)
        images[row.split] += 1
        previous = row.path
    if duplicates:
        raise DatasetError(f"{type}: found twice: {', '.join(duplicates[:5])}")
    classes = Counter(split for _, split in places.values())
    counts = {split: [classes[split], images[split]] for split in sorted(classes)}
    wrong = [
        f"  {split}: found {count_of(classes[split], 'class')} and "
        f"{count_of(images[split], 'image')}, expected {expected[0]:,} and {expected[1]:,}"
        for split, expected in declared.items()
        if [classes[split], images[split]] != list(expected)
    ]
    if wrong:
        raise DatasetError(
            "\n".join([f"{type}: the archives do not hold the official split", *wrong])
        )
    return counts


class Rows(Sequence[Row]):
    """The rows of an index by their ids. A Row is made when it is used."""

    def __init__(self, index: pa.Table) -> None:
        levels = sorted(name for name in index.column_names if name.startswith("level_"))
        self._table = index.select(["path", "class_name", *levels, "split", "role"])

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Row]:
        for batch in self._table.to_batches(max_chunksize=BATCH_ROWS):
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


def build_protocols(
    rows: Sequence[Row], protocols: Iterable[tuple[str, int, str, int]] | None
) -> pa.Table:
    """The table of protocols.parquet.

    Args:
        rows: in the order of the ids.
        protocols: (protocol, id, role, repetition) of a data set that declares them; None: plain
            zero-shot retrieval, in which each test image has the role of its row.
    """
    if protocols is None:
        tests = ((number, row) for number, row in enumerate(rows) if row.split == "test")
        protocols = ((ZERO_SHOT, number, row.role, 0) for number, row in tests)
    return _check_ids(_to_table(protocols, PROTOCOL_SCHEMA), ["id"], len(rows))


def build_pairs(rows: Sequence[Row], pairs: Iterable[tuple[int, int, bool, int]]) -> pa.Table:
    """The table of pairs.parquet, from (id, id, same class, fold) of each pair."""
    return _check_ids(_to_table(pairs, PAIR_SCHEMA), ["first", "second"], len(rows))


def content_digest(index: pa.Table, *others: pa.Table) -> str:
    """Digest of a store: of its rows as JSON, and of the images, whose digests are in the rows.

    It is the same whatever version of pyarrow wrote the files, and in whatever order the images
    arrived.
    """
    total = sha256()
    for table in (index.drop_columns(["offset"]), *others):
        for batch in table.to_batches(max_chunksize=BATCH_ROWS):
            for row in batch.to_pylist():
                total.update(json.dumps(row).encode())
    return total.hexdigest()


def _to_table(rows: Iterable[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    def batches() -> Iterator[pa.RecordBatch]:
        remaining = iter(rows)
        for first in remaining:
            columns = zip(*chain([first], islice(remaining, BATCH_ROWS - 1)), strict=True)
            arrays = [
                pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)
            ]
            yield pa.record_batch(arrays, schema=schema)

    return pa.Table.from_batches(batches(), schema)


def _check_ids(table: pa.Table, columns: Sequence[str], images: int) -> pa.Table:
    for name in columns:
        bounds = pc.min_max(table[name]).as_py()
        if len(table) and not 0 <= bounds["min"] <= bounds["max"] < images:
            raise DatasetError(f"a protocol or pair names images {bounds}, of 0..{images - 1}")
    return table
