"""The user's own images: a CSV of paths and classes, and the images in a folder or a zip.

`metadata.py` describes the columns and refuses wrong rows. This is a type with options: each entry
of a study that has this type is a separate data set, with a store named after the entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from dmlbench.datasets import Row
from dmlbench.datasets.archives.reading import open_zip
from dmlbench.datasets.archives.spec import Archive
from dmlbench.datasets.lookup import find_in_folder, find_in_zip
from dmlbench.datasets.metadata import csv_in_zip, is_zip, read_rows
from dmlbench.datasets.own_images import cached_facts, row_facts
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.text import count_of, listed

FACTS = {"version": 1, "channels": 3, "levels": [], "recall_at": [1, 2, 4, 8]}
"""The facts with default options."""
SOURCES: Mapping[str, Archive] = {}


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
            facts = cached_facts(
                "dmlbench.datasets.metadata",
                [self.file],
                (self._reading, str(self.place.resolve())),
                lambda: row_facts(self.rows),
            )
        except OSError as error:
            raise DatasetError(f"file: cannot read {self.file}: {error.strerror}.") from None
        return {**FACTS, **self._declared, **facts}

    def images(self, archives: Mapping[str, Path]) -> Iterator[tuple[Row, Any]]:
        """Yield each row and the source of its image, sorted by path."""
        from dmlbench.datasets.decoding import from_file, from_zip

        files = self._find_files()
        if is_zip(self.place):
            # Read here: with Sources that open the zip, each worker would hold its directory
            with open_zip(self.place) as (archive, members):
                for row in self.rows:
                    yield row, from_zip(archive, members[self._root + row.path])
        else:
            for row in self.rows:
                yield row, partial(from_file, f"{self.place}/{files.get(row.path, row.path)}")

    def check(self) -> None:
        """Make sure that all images are there.

        Raises:
            DatasetError: images are missing; the text names their lines.
        """
        self._find_files()

    def _find_files(self) -> dict[str, str]:
        """The files in the folder of the images whose names are not those of their rows."""
        paths = [row.path for row in self.rows]
        files: dict[str, str] = {}
        if self.place.is_dir():
            files, missing = find_in_folder(self.place, paths)
        elif is_zip(self.place):
            with open_zip(self.place) as (_, members):
                missing = find_in_zip(members, self._root, paths)
        else:
            if self.place.exists():
                raise DatasetError(f"images: {self.place} is neither a folder nor a .zip file.")
            raise DatasetError(f"images: there is no folder or zip {self.place}.")
        if missing:
            lines = [
                f"{row.origin}: {missing[row.path]}" for row in self.rows if row.path in missing
            ]
            images = count_of(len(missing), "image")
            verb = "is" if len(missing) == 1 else "are"
            raise DatasetError(listed(f"{images} {verb} not in {self.place}", lines))
        return files

    @cached_property
    def rows(self) -> list[Row]:
        """The rows of the CSV, sorted by path."""
        return read_rows(self.file, *self._reading, self.place)

    @cached_property
    def _root(self) -> str:
        """What precedes the paths of the CSV in the zip of the images: a folder, or nothing."""
        if self.place != self.file:
            return ""
        folder, slash, _ = csv_in_zip(self.file).rpartition("/")
        return folder + slash
