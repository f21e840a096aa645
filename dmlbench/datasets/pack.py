"""Data set -> packed store: every image decoded once, in a folder that is whole or is no store.

A store holds
- images.bin: uint8, the images one after another, each (channels, height, width);
- index.parquet: one row an image, in the order of the ids: id, path, label (dense over the data
  set, in the order of the class names), class_name, level_1 (the nearest super-class) ..., split,
  height, width;
- protocols.parquet: protocol, id, role ("query", "gallery", "both"), repetition;
- manifest.json, written last. Its `content` is the sha256 of the pixels and then of the index's
  rows as JSON, so it is the same whatever version of pyarrow wrote the file.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from dmlbench.datasets import DatasetError, Row, load
from dmlbench.datasets.archives import contents, fetch
from dmlbench.datasets.decoding import decode
from dmlbench.datasets.store import FORMAT
from dmlbench.files import write_json
from dmlbench.installed import versions


def pack(
    type: str,
    side: int,
    out: Path,
    archives: Path,
    checksums: Mapping[str, str] | None = None,
    workers: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Make the store of the data set `type` in the folder `out`, in place of one already there.

    Args:
        side: pixels of every image's short side.
        archives: folder of the data set's archives; what is missing there is downloaded.
        checksums: of archives that differ from the official ones, {file name: "md5:..."}.
        workers: decoding processes, default one a core. The store does not depend on it.
        options: of a type that has some.

    Raises DatasetError when an archive or image is not what it must be; `out` is as before then.
    """
    dataset = load(type, options)
    facts, checksums = dataset.FACTS, checksums or {}
    paths = fetch(dataset.SOURCES, archives, checksums)
    with _workplace(out) as partial:
        rows: list[Row] = []
        sizes: list[tuple[int, int]] = []
        content = sha256()
        with (
            (partial / "images.bin").open("wb") as file,
            tqdm(desc=f"{type}-{side}", unit=" images", disable=None) as progress,
        ):
            for decoded in decode(dataset.images(paths), side, facts["channels"], workers):
                file.write(decoded.pixels)
                content.update(decoded.pixels)
                rows += decoded.rows
                sizes += decoded.sizes
                progress.update(len(decoded.rows))
        counts = _check(type, rows, facts.get("splits", {}))
        index = _index(rows, sizes, facts["levels"])
        for batch in index.to_batches(max_chunksize=10_000):
            for row in batch.to_pylist():
                content.update(json.dumps(row).encode())
        pq.write_table(index, partial / "index.parquet")
        pq.write_table(_zero_shot(rows), partial / "protocols.parquet")
        manifest = {
            "format": FORMAT,
            "type": type,
            "side": side,
            "channels": facts["channels"],
            "images": len(rows),
            "splits": counts,
            "facts": facts,
            "content": content.hexdigest(),
            "settings": {
                "archives": {
                    name: archive["checksum"]
                    for name, archive in contents(dataset.SOURCES, paths, checksums).items()
                },
                "options": dict(options or {}),
                "versions": versions("dmlbench", "pillow", "matplotlib"),
            },
        }
        # a store without a manifest is no store, so no reader sees old and new files together
        (out / "manifest.json").unlink(missing_ok=True)
        for name in ("images.bin", "index.parquet", "protocols.parquet"):
            (partial / name).replace(out / name)
        write_json(out / "manifest.json", manifest)


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """An empty folder inside `out`, for one process at a time; others wait."""
    out.mkdir(parents=True, exist_ok=True)
    partial = out / "partial"
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(partial, ignore_errors=True)  # of one that was killed
        partial.mkdir()
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _check(type: str, rows: Sequence[Row], declared: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """[classes, images] of each split, after making sure that they are the declared ones, that
    paths are unique, and that every class has one split and one super-class at each level."""
    if not rows:
        raise DatasetError(f"{type}: it has no images")
    if twice := [path for path, n in Counter(row.path for row in rows).items() if n > 1]:
        raise DatasetError(f"{type}: found twice: {', '.join(twice[:5])}")
    places: dict[str, tuple[tuple[str, ...], str]] = {}
    for row in rows:
        place = row.levels, row.split
        if places.setdefault(row.class_name, place) != place:
            raise DatasetError(
                f"{type}: class {row.class_name} is both in {places[row.class_name]} and {place}"
            )
    classes = Counter(split for _, split in places.values())
    images = Counter(row.split for row in rows)
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


def _index(
    rows: Sequence[Row], sizes: Sequence[tuple[int, int]], levels: Sequence[str]
) -> pa.Table:
    names = [row.class_name for row in rows]
    label = {name: number for number, name in enumerate(sorted(set(names)))}
    columns = {
        "id": pa.array(range(len(rows)), pa.int32()),
        "path": pa.array([row.path for row in rows], pa.string()),
        "label": pa.array([label[name] for name in names], pa.int32()),
        "class_name": pa.array(names, pa.string()),
    }
    for level in range(len(levels)):
        columns[f"level_{level + 1}"] = pa.array([row.levels[level] for row in rows], pa.string())
    columns["split"] = pa.array([row.split for row in rows], pa.string())
    columns["height"] = pa.array([height for height, _ in sizes], pa.int32())
    columns["width"] = pa.array([width for _, width in sizes], pa.int32())
    return pa.table(columns)


def _zero_shot(rows: Sequence[Row]) -> pa.Table:
    """Plain zero-shot retrieval: every test image is a query against all the others, or as the
    data set's roles say."""
    ids = [number for number, row in enumerate(rows) if row.split == "test"]
    return pa.table(
        {
            "protocol": pa.array(["zero_shot"] * len(ids), pa.string()),
            "id": pa.array(ids, pa.int32()),
            "role": pa.array([rows[i].role for i in ids], pa.string()),
            "repetition": pa.array([0] * len(ids), pa.int32()),
        }
    )
