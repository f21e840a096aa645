"""Pack a data set: decode every image once, into a folder that is a complete store or no store.

A store holds

- images.bin: the images one after another in the order of arrival, each uint8 (channels, height,
  width) or a JPEG file;
- index.parquet: one row for each image, in the order of the ids, which is the order of the paths:
  id, path, label (dense over the data set, in the order of the class names), class_name, level_1
  (the nearest super-class) ..., split, height, width, offset (its first byte in images.bin), bytes
  (only of JPEG stores), digest (of its bytes);
- protocols.parquet: protocol, id, role ("query", "gallery", "both"), repetition;
- pairs.parquet, for verification: first, second (ids), same (class), fold;
- manifest.json, written last: what was packed, the sizes of the files, the sha256 of the tables,
  and `content`, the sha256 of the rows of the tables without offsets. It ends with its own sha256.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from dmlbench.datasets import load
from dmlbench.datasets.archives.fetching import describe_archives, fetch
from dmlbench.datasets.decoding import MAX_ASPECT_RATIO, decode
from dmlbench.datasets.store import tables
from dmlbench.datasets.store.format import (
    FORMAT,
    IMAGES_FILE,
    INDEX_FILE,
    MANIFEST_FILE,
    PAIRS_FILE,
    PROTOCOLS_FILE,
    store_bytes,
)
from dmlbench.datasets.store.journal import Journal
from dmlbench.datasets.store.reader import Store
from dmlbench.utils.digests import describe_file, write_with_digest
from dmlbench.utils.discovery import versions
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.fingerprint import code_digest
from dmlbench.utils.locks import wait_for_lock
from dmlbench.utils.text import count_of

KEPT = "What is decoded is kept: the same command goes on from there."


def pack(
    type: str,
    side: int,
    out: Path,
    archives: Path,
    checksums: Mapping[str, str] | None = None,
    workers: int | None = None,
    options: Mapping[str, Any] | None = None,
    form: str = "pixels",
) -> None:
    """Make the store of the data set `type` in the folder `out`; see `Store` for an example.

    If `out` holds this store already, nothing happens. A packing that was killed resumes. If two
    processes want the same store, one packs it and the other waits.

    Args:
        type: name of a data set or of a type of data sets, as `dmlbench list datasets` prints it.
        side: length in pixels of the short side of every image.
        out: folder of the store.
        archives: folder of the data set's archives; missing ones are downloaded.
        checksums: {file name: "md5:..."} of archives that differ from the official ones.
        workers: decoding processes; None: one for each usable core. The store does not depend on
            it.
        options: options of a type that has some, as `csv`.
        form: how each image is kept: "pixels", or "jpeg" if the decoded images would fill the disk.

    Raises:
        DatasetError: an archive or image is not what it must be, or the disk is too small. A store
            that was in `out` is unchanged then.
    """
    if side < 1:
        raise DatasetError(f"the short side is {side}, and not 1 pixel or more")
    dataset = load(type, options)
    if not hasattr(dataset, "images"):
        raise DatasetError(f"'{type}' needs options that describe the data set: give --options")
    facts, checksums = dataset.FACTS, {} if checksums is None else checksums
    request = {
        "format": FORMAT,
        "type": type,
        "side": side,
        "store": form,
        "channels": facts["channels"],
        "facts": facts,
        "checksums": checksums,
    }
    request = json.loads(json.dumps(request))  # tuples as lists, as a manifest is read
    if _is_packed(out, request):  # the folder may belong to other people: nothing to lock there
        return
    with _locked(out):
        if _is_packed(out, request):  # by another process, while this one waited
            return
        paths = fetch(dataset.SOURCES, archives, checksums)
        settings = {
            "archives": {
                name: archive["checksum"]
                for name, archive in describe_archives(dataset.SOURCES, paths, checksums).items()
            },
            "options": dict(options or {}),
            "place": str(dataset.place.resolve()) if options and dataset.place else None,
            "versions": versions("dmlbench", "pillow", "matplotlib"),
        }
        depends_on = {
            **{name: request[name] for name in ("format", "side", "store", "channels")},
            "versions": settings["versions"],
            "code": code_digest("dmlbench.datasets.decoding"),
        }
        partial, code = out / "partial", code_digest(f"dmlbench.datasets.{type}")
        with closing(Journal(partial, depends_on, code)) as journal:
            _check_free_space(out, facts, side, form, journal)
            with _keeping(journal, out, form):
                _decode_all(dataset, paths, side, form, workers, journal)
                index = tables.build_index(journal.read(), len(facts["levels"]))
                rows = tables.Rows(index)
                counts = tables.count_splits(type, rows, facts.get("splits", {}))
                by_file = _build_tables(dataset, index, rows, paths, form)
                for name, table in by_file.items():
                    pq.write_table(table, partial / name, write_page_checksum=True)
                    _wait_for_disk(partial / name)
        records = {name: describe_file(partial / name) for name in by_file}
        images_bytes = (partial / IMAGES_FILE).stat().st_size
        files = {IMAGES_FILE: images_bytes} | {name: records[name]["bytes"] for name in by_file}
        manifest = {
            **request,
            "images": len(rows),
            "splits": counts,
            "content": tables.content_digest(*by_file.values()),
            "files": files,
            "digests": {name: record["sha256"] for name, record in records.items()},
            "cut": _count_cropped(index, side),
            "settings": settings,
        }
        # a store without a manifest is no store, so no reader sees old and new files together
        (out / MANIFEST_FILE).unlink(missing_ok=True)
        for name in files:
            (partial / name).replace(out / name)
        _wait_for_disk(out)  # a machine that dies must not leave a manifest without its files
        write_with_digest(out / MANIFEST_FILE, manifest)
        shutil.rmtree(partial)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Let one process at a time work on the folder `out`; others wait."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as error:
        raise DatasetError(
            f"{out} cannot be written: {error.strerror}. "
            f"DMLBENCH_DATA=<folder> keeps data in a folder of your own."
        ) from None
    with lock:
        wait_for_lock(lock, out, f"{out}: another process packs it; waiting")
        yield


def _wait_for_disk(path: Path) -> None:
    """Wait until the file or folder `path` is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_packed(out: Path, request: Mapping[str, Any]) -> bool:
    """Whether `out` holds the store of this request; if so, say it."""
    try:
        manifest = Store(out).manifest
    except DatasetError:
        return False
    if any(manifest.get(name) != value for name, value in request.items()):
        return False
    print(f"{out}: it is there already")
    return True


@contextmanager
def _keeping(journal: Journal, out: Path, form: str) -> Iterator[None]:
    """Keep what is decoded, whatever goes wrong, and say so."""
    try:
        yield
    except DatasetError as error:
        with suppress(OSError):  # the disk may be full; the journal has what it saved before
            journal.save()
        if not journal.bytes:
            raise
        separator = "\n" if "\n" in str(error) else " "
        raise DatasetError(f"{error}{separator}{KEPT}") from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DatasetError(f"{out}: no space is left. {_space_hint(form)} {KEPT}") from error


def _decode_all(
    dataset: Any,
    archives: Mapping[str, Path],
    side: int,
    form: str,
    workers: int | None,
    journal: Journal,
) -> None:
    corrupt = set(getattr(dataset, "KNOWN_CORRUPT", ()))
    remaining = (
        (row, source)
        for row, source in dataset.images(archives)
        if row.path not in corrupt and not journal.holds(row, source)
    )
    with tqdm(unit=" images", initial=len(journal.done), disable=None) as progress:
        for chunk in decode(remaining, side, dataset.FACTS["channels"], form, workers):
            journal.add(chunk)
            progress.update(len(chunk.images))
    journal.save()
    journal.drop_unused()


def _build_tables(
    dataset: Any, index: pa.Table, rows: tables.Rows, archives: Mapping[str, Path], form: str
) -> dict[str, pa.Table]:
    """The tables of the store by file name."""
    index = index.drop_columns(["role", *(["bytes"] if form == "pixels" else [])])
    declared = dataset.protocols(rows, archives) if hasattr(dataset, "protocols") else None
    by_file = {INDEX_FILE: index, PROTOCOLS_FILE: tables.build_protocols(rows, declared)}
    if hasattr(dataset, "pairs"):
        by_file[PAIRS_FILE] = tables.build_pairs(rows, dataset.pairs(rows, archives))
    return by_file


def _check_free_space(
    out: Path, facts: Mapping[str, Any], side: int, form: str, journal: Journal
) -> None:
    """Say how much space the store needs; refuse to begin if less is free."""
    if journal.done:
        print(f"{out}: goes on after {count_of(len(journal.done), 'image')}", flush=True)
    images = sum(count for _, count in facts.get("splits", {}).values())
    needed = store_bytes(images, facts["channels"], side, form)
    free = shutil.disk_usage(out).free
    if images:
        print(
            f"{out}: {count_of(images, 'image')} will take about {needed / 1e9:.2g} GB; "
            f"{free / 1e9:.3g} GB are free",
            flush=True,
        )
    if needed - journal.bytes > free:
        raise DatasetError(
            f"{out}: it needs about {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free. "
            f"{_space_hint(form)}"
        )


def _space_hint(form: str) -> str:
    smaller = ", write `store: jpeg` in the data set's entry (a quarter of the size),"
    return (
        f"Make room{smaller if form == 'pixels' else ''} "
        f"or keep data on another disk: DMLBENCH_DATA=<folder>."
    )


def _count_cropped(index: pa.Table, side: int) -> int:
    """Number of images with the largest allowed aspect ratio: nearly all of them were cropped."""
    longest = np.maximum(index["height"].to_numpy(), index["width"].to_numpy())
    return int((longest == MAX_ASPECT_RATIO * side).sum())
