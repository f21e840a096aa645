"""The user's own images: a CSV of paths and classes, and the images in a folder or a zip.

`metadata.py` describes the columns and refuses wrong rows. This is a type with options: each entry
of a study that has this type is a separate data set, with a store named after the entry.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from dmlbench.datasets import Row
from dmlbench.datasets.archives.reading import open_zip
from dmlbench.datasets.archives.spec import Archive
from dmlbench.datasets.metadata import SPLITS, csv_in_zip, is_zip, read_rows
from dmlbench.utils.discovery import cache_folder
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.files import read_json, write_json
from dmlbench.utils.fingerprint import code_digest
from dmlbench.utils.text import listed

FACTS = {"version": 1, "channels": 3, "levels": [], "recall_at": [1, 2, 4, 8]}
"""The facts with default options."""
SOURCES: Mapping[str, Archive] = {}

FRESH = 2.0
"""Seconds. Facts of a file that changed less than this ago are not cached: it may change again and
keep its time of change."""


class Csv:
    """The data set that a CSV describes. Paths are relative to the current folder.

    Args:
        file: the CSV, or a zip with one CSV in it.
        images: folder or zip of the images; null: the folder or zip of the CSV.
        levels: columns of super-classes, the nearest to the class first.
        ignore: columns without meaning here.
        channels: 3 (colour) or 1 (gray); every image is converted.
        split_seed: draws the split if the CSV has no column for it.
        revision: raise it when images change and keep their paths: it makes earlier results stale.

    Raises:
        DatasetError: the CSV or images are missing or wrong; the text names the lines of the CSV.
            The constructor raises it only if `file` is empty, everything else when it reads.
    """

    SOURCES = SOURCES

    def __init__(
        self,
        *,
        file: str = "",
        images: str | None = None,
        levels: tuple[str, ...] = (),
        ignore: tuple[str, ...] = (),
        channels: Literal[1, 3] = 3,
        split_seed: int = 0,
        revision: int = 1,
    ) -> None:
        if not file:
            raise DatasetError("file: is missing: a CSV with the columns path,label, or its zip.")
        self.file = Path(file)
        self._reading = (levels, ignore, split_seed)
        self._declared = {"channels": channels, "levels": list(levels), "revision": revision}
        self.place = (
            Path(images) if images else self.file if is_zip(self.file) else self.file.parent
        )

    @cached_property
    def FACTS(self) -> dict[str, Any]:
        """The facts of the images for a run's key: a digest of their rows, and not their place.

        Every job needs them, so the cache folder keeps them until the CSV is touched.
        """
        try:
            stat = self.file.stat()
        except OSError as error:
            raise DatasetError(f"file: cannot read {self.file}: {error.strerror}.") from None
        state = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        code = code_digest("dmlbench.datasets.metadata")
        key = repr((str(self.file.resolve()), state, self._reading, code))
        cached = cache_folder() / f"csv-{sha256(key.encode()).hexdigest()[:16]}.json"
        try:
            facts = read_json(cached)
        except (OSError, ValueError):
            facts = self._count()
            if time.time() - stat.st_ctime > FRESH:
                with contextlib.suppress(OSError):  # without a cache it is only slower
                    write_json(cached, facts)
        return {**FACTS, **self._declared, **facts}

    def images(self, archives: Mapping[str, Path]) -> Iterator[tuple[Row, Any]]:
        """Yield each row and the source of its image, sorted by path."""
        from dmlbench.datasets.decoding import from_file, from_zip

        self.check()
        if is_zip(self.place):
            # Read here: with Sources that open the zip, each worker would hold its directory
            with open_zip(self.place) as (archive, members):
                for row in self.rows:
                    yield row, from_zip(archive, members[self._root + row.path])
        else:
            for row in self.rows:
                yield row, partial(from_file, self._root + row.path)

    def check(self) -> None:
        """Make sure that all images are there.

        Raises:
            DatasetError: images are missing; the text names their lines.
        """
        paths = [self._root + row.path for row in self.rows]
        if is_zip(self.place):
            with open_zip(self.place) as (_, members):
                existing = {*members}
        elif self.place.is_dir():  # to list each folder is faster than to look at each file
            folders = {path.rpartition("/")[0] for path in paths}
            existing = {
                f"{folder}/{entry.name}"
                for folder in folders
                if Path(folder).is_dir()
                for entry in os.scandir(folder)
            }
        else:
            raise DatasetError(f"images: there is no folder or zip {self.place}.")
        missing = [
            f"{row.origin}: no file {row.path}"
            for row, path in zip(self.rows, paths, strict=True)
            if path not in existing
        ]
        if missing:
            raise DatasetError(listed(f"{len(missing)} images are not in {self.place}", missing))

    @cached_property
    def rows(self) -> list[Row]:
        """The rows of the CSV, sorted by path."""
        return read_rows(self.file, *self._reading)

    @cached_property
    def _root(self) -> str:
        """What precedes the paths of the CSV: a folder of the disk, or one inside the zip."""
        if not is_zip(self.place):
            return f"{self.place}/"
        if self.place != self.file:
            return ""
        folder, slash, _ = csv_in_zip(self.file).rpartition("/")
        return folder + slash

    def _count(self) -> dict[str, Any]:
        """[classes, images] of each split, and a digest of the rows."""
        content = json.dumps([row[:-1] for row in self.rows])  # without the line numbers
        images = Counter(row.split for row in self.rows)
        classes = Counter(split for _, split in {(row.class_name, row.split) for row in self.rows})
        splits = {split: [classes[split], images[split]] for split in SPLITS}
        return {"splits": splits, "rows": f"sha256:{sha256(content.encode()).hexdigest()}"}
