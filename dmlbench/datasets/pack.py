"""Data set -> packed store: every image decoded once, in a folder that is whole or is no store.

A store holds
- images.bin: the images one after another as they arrived, each uint8 (channels, height, width) or
  a JPEG file;
- index.parquet: one row an image, in the order of the ids, which is that of the paths: id, path,
  label (dense over the data set, in the order of the class names), class_name, level_1 (the nearest
  super-class) ..., split, height, width, offset (of its first byte in images.bin), bytes (of JPEG
  stores), digest (of its bytes);
- protocols.parquet: protocol, id, role ("query", "gallery", "both"), repetition;
- pairs.parquet, of a data set for verification: first, second (ids), same (class), fold;
- manifest.json, written last: what was packed, the files' sizes, and `content`, the sha256 of the
  tables' rows without offsets.
"""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from dmlbench import source
from dmlbench.datasets import FORMAT, DatasetError, Row, load, store_bytes, tables
from dmlbench.datasets.archives import contents, fetch
from dmlbench.datasets.decoding import LONGEST, OUT_OF_MEMORY, Source, decode
from dmlbench.datasets.journal import Journal
from dmlbench.datasets.store import Store
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
    form: str = "pixels",
) -> None:
    """Make the store of the data set `type` in the folder `out`. A whole store that is there is
    left alone; a packing that was killed goes on where it was.

    Args:
        side: pixels of every image's short side.
        archives: folder of the data set's archives; what is missing there is downloaded.
        checksums: of archives that differ from the official ones, {file name: "md5:..."}.
        workers: decoding processes, default one a core. The store does not depend on it.
        options: of a type that has some.
        form: "pixels", or "jpeg" where the decoded images would fill the disk.

    Raises DatasetError when an archive or image is not what it must be or the disk is too small;
    `out` is as before then.
    """
    if side < 1:
        raise DatasetError(f"the short side is {side}, and not 1 pixel or more")
    dataset = load(type, options)
    if not hasattr(dataset, "images"):
        raise DatasetError(f"'{type}' has options, and is a data set with them only: --options")
    facts, checksums = dataset.FACTS, {} if checksums is None else checksums
    asked = {
        "format": FORMAT,
        "type": type,
        "side": side,
        "store": form,
        "channels": facts["channels"],
        "facts": facts,
        "checksums": checksums,
    }
    asked = json.loads(json.dumps(asked))  # tuples as lists, as it is read again
    if _is_there(out, asked):  # perhaps in a folder that others own, where nothing is to lock
        return
    with _alone(out):
        if _is_there(out, asked):  # by now: another process packed it
            return
        paths = fetch(dataset.SOURCES, archives, checksums)
        settings = {
            "archives": {
                name: archive["checksum"]
                for name, archive in contents(dataset.SOURCES, paths, checksums).items()
            },
            "options": dict(options or {}),
            "place": str(dataset.place.resolve()) if options else None,
            "versions": versions("dmlbench", "pillow", "matplotlib"),
        }
        code = source.digest(f"dmlbench.datasets.{type}", "dmlbench.datasets.decoding")
        partial = out / "partial"
        with closing(Journal(partial, {**asked, **settings, "code": code})) as journal:
            _look_for_room(out, facts, side, form, journal)
            with _cleared_if_wrong(partial, form):
                _decode_all(dataset, paths, side, form, workers, journal)
                index = tables.collect(journal.read(), len(facts["levels"]))
                rows = tables.Rows(index)
                counts = tables.check(type, rows, facts.get("splits", {}))
                written = _tables(dataset, index, rows, paths, form)
                for name, table in written.items():
                    pq.write_table(table, partial / name)
        files = {name: (partial / name).stat().st_size for name in ("images.bin", *written)}
        manifest = {
            **asked,
            "images": len(rows),
            "splits": counts,
            "content": tables.content(*written.values()),
            "files": files,
            "cut": _cut(index, side),
            "settings": settings,
        }
        # a store without a manifest is no store, so no reader sees old and new files together
        (out / "manifest.json").unlink(missing_ok=True)
        for name in files:
            (partial / name).replace(out / name)
        write_json(out / "manifest.json", manifest)
        shutil.rmtree(partial)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One process at a time works on the folder `out`; others wait."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as error:
        raise DatasetError(
            f"{out} cannot be written: {error.strerror}. "
            f"DMLBENCH_DATA=<folder> keeps data in a folder of your own."
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{out}: another process packs it; waiting", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_there(out: Path, asked: Mapping[str, Any]) -> bool:
    """Whether the store that is asked for is in `out`, which is said then."""
    try:
        manifest = Store(out).manifest
    except DatasetError:
        return False
    if any(manifest.get(name) != value for name, value in asked.items()):
        return False
    print(f"{out}: it is there already")
    return True


@contextmanager
def _cleared_if_wrong(partial: Path, form: str) -> Iterator[None]:
    """Nothing is kept of a data set that is not what it must be, all of one that found no room, or
    was stopped by this machine: by a disk that cannot be read, or for want of memory."""
    try:
        yield
    except DatasetError as error:
        # what damaged images and archives raise has no errno
        if isinstance(error.__cause__, OUT_OF_MEMORY) or getattr(error.__cause__, "errno", None):
            raise DatasetError(f"{error} What is done is kept.") from error
        shutil.rmtree(partial, ignore_errors=True)
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DatasetError(
            f"{partial.parent}: no space is left. {_ways_out(form)} What is done is kept."
        ) from error


def _decode_all(
    dataset: Any,
    archives: Mapping[str, Path],
    side: int,
    form: str,
    workers: int | None,
    journal: Journal,
) -> None:
    known = set(getattr(dataset, "KNOWN_CORRUPT", ()))
    todo = _todo(dataset.images(archives), known, journal.done)
    with tqdm(unit=" images", initial=len(journal.done), disable=None) as progress:
        for decoded in decode(todo, side, dataset.FACTS["channels"], form, workers):
            journal.add(decoded)
            progress.update(len(decoded.images))
    journal.save()


def _tables(
    dataset: Any, index: pa.Table, rows: tables.Rows, archives: Mapping[str, Path], form: str
) -> dict[str, pa.Table]:
    """The store's tables by their files' names."""
    index = index.drop_columns(["role", *(["bytes"] if form == "pixels" else [])])
    own = dataset.protocols(rows, archives) if hasattr(dataset, "protocols") else None
    found = {"index.parquet": index, "protocols.parquet": tables.protocols(rows, own)}
    if hasattr(dataset, "pairs"):
        found["pairs.parquet"] = tables.pairs(rows, dataset.pairs(rows, archives))
    return found


def _todo(
    images: Iterable[tuple[Row, Source]], known: set[str], done: set[str]
) -> Iterator[tuple[Row, Source]]:
    """The images that are to be decoded: not those that are known to be damaged, nor what an
    earlier packing did."""
    for row, image in images:
        if row.path in done:
            done.remove(row.path)  # a second one of the same path is found as such
        elif row.path not in known:
            yield row, image


def _look_for_room(
    out: Path, facts: Mapping[str, Any], side: int, form: str, journal: Journal
) -> None:
    """Say how much space the store needs, and refuse to begin where there is less."""
    if journal.done:
        print(f"{out}: goes on after {len(journal.done):,} images", flush=True)
    images = sum(count for _, count in facts.get("splits", {}).values())
    needed = store_bytes(images, facts["channels"], side, form)
    free = shutil.disk_usage(out).free
    if images:
        print(
            f"{out}: {images:,} images will take about {needed / 1e9:.2g} GB; "
            f"{free / 1e9:.3g} GB are free",
            flush=True,
        )
    if needed - journal.bytes > free:
        raise DatasetError(
            f"{out}: it needs about {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free. "
            f"{_ways_out(form)}"
        )


def _ways_out(form: str) -> str:
    smaller = ", write `store: jpeg` in the data set's entry (a quarter of the size),"
    return (
        f"Make room{smaller if form == 'pixels' else ''} "
        f"or keep data on another disk: DMLBENCH_DATA=<folder>."
    )


def _cut(index: pa.Table, side: int) -> int:
    """Images of the longest shape: of nearly all of them only the middle was kept."""
    longest = np.maximum(index["height"].to_numpy(), index["width"].to_numpy())
    return int((longest == LONGEST * side).sum())
