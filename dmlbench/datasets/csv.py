"""Images of one's own: a CSV of paths and classes, the images in a folder or a zip.

The columns are those of `metadata.py`, which says what it refuses. This is a type with options:
each entry of a study that has it is a data set of its own, with a store named after the entry.
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

from dmlbench import source
from dmlbench.datasets import Archive, DatasetError, Row, listed
from dmlbench.datasets.archives import open_zip
from dmlbench.datasets.metadata import SPLITS, csv_in_zip, is_zip, read_rows
from dmlbench.files import read_json, write_json
from dmlbench.installed import cache_folder

FACTS = {"version": 1, "channels": 3, "levels": [], "recall_at": [1, 2, 4, 8]}
"""Where the options say nothing else."""
SOURCES: Mapping[str, Archive] = {}

FRESH = 2.0
"""Seconds within which a file may change once more and show the same time of change."""


class Csv:
    """The data set that a CSV describes. Paths are relative to where the command is given.

    Args:
        file: the CSV, or a zip with one CSV in it.
        images: folder or zip of the images; null: where the CSV is.
        levels: columns of super-classes, the nearest to the class first.
        ignore: columns that mean nothing here.
        channels: 3, colour, or 1, gray; every image is converted.
        split_seed: draws the split where no column says it.
        revision: to be raised when images change under their paths, as what was trained on the old
            ones is stale then.

    Raises DatasetError, naming the lines of the CSV, as soon as it is asked for something.
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
        self.reading = (levels, ignore, split_seed)
        self.declared = {"channels": channels, "levels": list(levels), "revision": revision}
        self.place = (
            Path(images) if images else self.file if is_zip(self.file) else self.file.parent
        )

    @cached_property
    def FACTS(self) -> dict[str, Any]:
        """What a run's key holds of the images: their rows and not where they lie. Every job asks
        for it, so it is kept in the cache folder until the file is touched."""
        try:
            stat = self.file.stat()
        except OSError as error:
            raise DatasetError(f"file: cannot read {self.file}: {error.strerror}.") from None
        state = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        code = source.digest("dmlbench.datasets.metadata")
        what = repr((str(self.file.resolve()), state, self.reading, code))
        cached = cache_folder() / f"csv-{sha256(what.encode()).hexdigest()[:16]}.json"
        try:
            counted = read_json(cached)
        except (OSError, ValueError):
            counted = self._count()
            if time.time() - stat.st_ctime > FRESH:
                with contextlib.suppress(OSError):  # without a cache it is slower, and no worse
                    write_json(cached, counted)
        return {**FACTS, **self.declared, **counted}

    def images(self, archives: Mapping[str, Path]) -> Iterator[tuple[Row, Any]]:
        """Each row and its image, in the order of the paths."""
        from dmlbench.datasets.decoding import from_file, from_zip

        self.check()
        if is_zip(self.place):  # read here: its directory would fill the memory of each process
            with open_zip(self.place) as (archive, members):
                for row in self.rows:
                    yield row, from_zip(archive, members[self._root + row.path])
        else:
            for row in self.rows:
                yield row, partial(from_file, self._root + row.path)

    def check(self) -> None:
        """Raise DatasetError with the lines whose images are not there."""
        places = [self._root + row.path for row in self.rows]
        if is_zip(self.place):
            with open_zip(self.place) as (_, members):
                there = {*members}
        elif self.place.is_dir():  # a listing a folder costs less than a look at each file
            folders = {place.rpartition("/")[0] for place in places}
            there = {
                f"{folder}/{entry.name}"
                for folder in folders
                if Path(folder).is_dir()
                for entry in os.scandir(folder)
            }
        else:
            raise DatasetError(f"images: there is no folder or zip {self.place}.")
        missing = [
            f"{row.origin}: no file {row.path}"
            for row, place in zip(self.rows, places, strict=True)
            if place not in there
        ]
        if missing:
            raise DatasetError(listed(f"{len(missing)} images are not in {self.place}", missing))

    @cached_property
    def rows(self) -> list[Row]:
        return read_rows(self.file, *self.reading)

    @cached_property
    def _root(self) -> str:
        """What the paths of the CSV are relative to."""
        if not is_zip(self.place):
            return f"{self.place}/"
        if self.place != self.file:
            return ""
        folder, slash, _ = csv_in_zip(self.file).rpartition("/")
        return folder + slash

    def _count(self) -> dict[str, Any]:
        """Digest of the rows, and [classes, images] of each split."""
        content = json.dumps([row[:-1] for row in self.rows])  # without the lines
        images = Counter(row.split for row in self.rows)
        classes = Counter(split for _, split in {(row.class_name, row.split) for row in self.rows})
        splits = {split: [classes[split], images[split]] for split in SPLITS}
        return {"splits": splits, "rows": f"sha256:{sha256(content.encode()).hexdigest()}"}
