"""The user's own images in Parquet files, as data sets on the Hugging Face Hub have them.

The files are on the disk, or are those of one commit of the hub, which are fetched as archives are.
This is a type with options: each entry of a study that has this type is a separate data set, with a
store named after the entry.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import astuple
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dmlbench.datasets import Row, load
from dmlbench.datasets.archives.hub import SUFFIX, pin, staged_files
from dmlbench.datasets.archives.spec import Archive, HubFiles, Sources
from dmlbench.datasets.names import normalize_path
from dmlbench.datasets.own_images import Ignored, cached_facts, part_of, row_facts, split_rows
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.files import data_folder
from dmlbench.utils.reading import is_system_folder

if TYPE_CHECKING:
    from PIL import Image

FACTS = {"version": 1, "channels": 3, "levels": [], "recall_at": [1, 2, 4, 8]}
"""The facts with default options."""
SOURCES: Mapping[str, Archive] = {}


class Parquet:
    """The data set in Parquet files. Paths are relative to the current folder.

    Args:
        files: files, folders or patterns as "data/*.parquet"; in a `repo`, patterns of its paths.
        repo: "owner/name" of a data set on the Hugging Face Hub, in place of local files.
        revision: of a `repo`: the commit, 40 hex digits. Of local files: change it when images
            change and keep their labels: it makes earlier results stale.
        image: column of the images; null: the only one.
        label: column of the classes; null: the only one.
        levels: columns of super-classes, the nearest to the class first.
        split: "classes" lets half of the classes of each nearest super-class train; null does so
            if neither a column `split` nor the names of the files say train and test.
        split_seed: draws the split.
        ignore: parts that are left out, as "validation", and classes.
        channels: 3 (colour) or 1 (gray); every image is converted.
        mirror_of: the official data set whose images these are. It gives the classes, the split
            and the facts; `label` and `levels` only help to match the images.

    Raises:
        DatasetError: files are missing or are not what they must be. The constructor raises it
            only for its options, everything else when it reads.
    """

    def __init__(
        self,
        *,
        files: str | tuple[str, ...] = (),
        repo: str | None = None,
        revision: str | int = "",
        image: str | None = None,
        label: str | None = None,
        levels: tuple[str, ...] = (),
        split: Literal["classes"] | None = None,
        split_seed: int = 0,
        ignore: tuple[str, ...] = (),
        channels: Literal[1, 3] = 3,
        mirror_of: Literal["cub200", "cars196", "sop", "inshop"] | None = None,
    ) -> None:
        self._files = tuple(filter(None, [files] if isinstance(files, str) else files))
        self._hub: HubFiles | None = None
        if repo:
            self._hub = pin(repo, revision, self._files or (f"*{SUFFIX}",))
        elif not self._files:
            raise DatasetError("files: is missing: Parquet files, or a `repo` of a hub.")
        self._columns = (image, label, tuple(levels))
        self._split, self._seed, self._ignore = split, split_seed, tuple(ignore)
        self._mirror_of = mirror_of
        self._reading = {
            "image": image,
            "label": label,
            "levels": list(levels),
            "split": split,
            "split_seed": split_seed,
            "ignore": list(ignore),
            "mirror_of": mirror_of,
        }
        own = {**FACTS, "channels": channels, "levels": list(levels)}
        self._declared: dict[str, Any] = load(mirror_of).FACTS if mirror_of else own
        if not repo:
            self._declared = {**self._declared, "revision": revision}
        self.SOURCES: Sources = self._hub or SOURCES

    @property
    def place(self) -> Path | None:
        """The folder around all local files; None for a `repo`: its commit says what it holds."""
        if self._hub:
            return None
        return Path(os.path.commonpath({path.resolve().parent for path in self._local_files}))

    @cached_property
    def FACTS(self) -> dict[str, Any]:
        """The facts of the images for a run's key.

        Of local files they hold a digest of the rows, and not their place. Of a `repo` they hold
        the commit and how it is read, so they are known before anything is fetched.
        """
        if self._hub:
            repo, commit, patterns = astuple(self._hub)
            hub = {"repo": repo, "commit": commit, "files": [*patterns]}
            return {**self._declared, "hub": hub, "reading": self._reading}
        return {**self._declared, **self._counted}

    @property
    def is_staged(self) -> bool:
        """Whether the files are here, so that the rows can be read."""
        return bool(self._paths)

    @property
    def ABOUT(self) -> dict[str, list[int]] | None:
        """[classes, images] of each split; None as long as the files of a `repo` are not here."""
        return self._counted["splits"] if self.is_staged else None

    @property
    def rows(self) -> list[Row]:
        """A row for each image, sorted by path. The files must be here."""
        return self._rows(self._paths)

    def check(self) -> None:
        """Read all rows, if the files are here.

        Raises:
            DatasetError: rows are wrong; the text names them.
        """
        if self.is_staged:
            _ = self.rows

    def images(self, archives: Mapping[str, Path]) -> Iterator[tuple[Row, Any]]:
        """Yield each row and the bytes of its image, in the order of the files."""
        from dmlbench.datasets.parquet_files import choose_columns, read_images

        paths = archives or self._paths
        rows = {row.origin: row for row in self._rows(paths)}
        for name, path in paths.items():
            column = choose_columns(path, *self._columns).image
            for number, content in enumerate(read_images(path, column)):
                if row := rows.get(_origin(name, number)):
                    yield row, content or partial(_without_bytes, row.path)

    @cached_property
    def _paths(self) -> Mapping[str, Path]:
        """{name: path}: those of the `repo`, {} if they are not all here; or the local files.

        The names of local files are relative to the folder around all of them.
        """
        if self._hub:
            return staged_files(self._hub, data_folder() / "archives")
        place = self.place or Path()
        return {os.path.relpath(path.resolve(), place): path for path in self._local_files}

    @cached_property
    def _local_files(self) -> list[Path]:
        files: dict[Path, None] = {}
        for pattern in self._files:
            matching = _matching_files(Path(pattern))
            if not matching:
                found = "no Parquet file in the folder" if Path(pattern).is_dir() else "no file"
                raise DatasetError(f"files: there is {found} {pattern}.")
            files |= dict.fromkeys(matching)
        return [*files]

    @cached_property
    def _counted(self) -> dict[str, Any]:
        paths = self._paths
        try:
            return cached_facts(
                "dmlbench.datasets.parquet",
                [*paths.values()],
                (self._reading, self._columns, [*paths]),
                lambda: row_facts(self._rows(paths)),
            )
        except OSError as error:
            raise DatasetError(f"files: cannot read {error.filename}: {error.strerror}.") from None

    def _rows(self, paths: Mapping[str, Path]) -> list[Row]:
        """A row for each image, sorted by path."""
        from dmlbench.datasets.parquet_files import choose_columns, read_labels

        rows: list[Row] = []
        files_by_kind: dict[tuple[bool, ...], str] = {}
        ignored = Ignored(self._ignore)
        for name, path in paths.items():
            columns, part = choose_columns(path, *self._columns), _part_of_file(name)
            if not columns.split and ignored.matches(part):
                continue  # tests of the hub often have no labels
            labels = read_labels(path, columns)
            files_by_kind.setdefault(labels.numbered, name)
            parts = labels.parts or [part] * len(labels.labels)
            cells = zip(labels.paths, labels.labels, labels.levels, parts, strict=True)
            rows += [
                Row(normalize_path(image), label, levels, part, origin=_origin(name, number))
                for number, (image, label, levels, part) in enumerate(cells)
            ]
        rows = [
            row
            for row in rows
            if not (ignored.matches(row.split) or ignored.matches(row.class_name))
        ]
        place = self._hub.repo if self._hub else ", ".join(self._files)
        if len(files_by_kind) > 1 and not self._mirror_of:
            first, second = [*files_by_kind.values()][:2]
            raise DatasetError(
                f"{place}: classes have names in one of {first} and {second}, and numbers without "
                f"names in the other, so one class would be two. Write files of one kind."
            )
        if unused := ignored.unused():
            raise DatasetError(f"ignore: {place} has no part and no class {', '.join(unused)}.")
        if self._mirror_of:
            from dmlbench.datasets.mirrors import official_rows

            return official_rows(self._mirror_of, rows, data_folder() / "archives", place)
        if len({row.path for row in rows} - {""}) < len(rows):
            # without a path of its own for each image, the place in the files is the path
            rows = [row._replace(path=_place_of(row.origin)) for row in rows]
        hint = "name it under `ignore`"
        return split_rows(place, rows, self._split, self._seed, hint)


def _matching_files(path: Path) -> list[Path]:
    """The file `path`; the Parquet files below a folder; or the files that fit a pattern."""
    if path.is_file():
        return [path]
    if is_system_folder(path):
        raise DatasetError(f"files: {path} belongs to the system. Name the folder of the files.")
    if path.is_dir():
        return sorted(path.rglob(f"*{SUFFIX}"))
    try:
        fitting = [*Path(path.anchor).glob(str(path.relative_to(path.anchor)))]
    except (ValueError, NotImplementedError):  # no pattern, as "**.parquet"
        return []
    return sorted(file for file in fitting if file.is_file())


def _origin(name: str, number: int) -> str:
    return f"{name}, row {number}"


def _place_of(origin: str) -> str:
    """ "data/train-0.parquet/000017" of "data/train-0.parquet, row 17"."""
    name, _, number = origin.rpartition(", row ")
    return f"{name}/{int(number):06}"


def _part_of_file(name: str) -> str:
    """The part that the name of a file or of its folders says; "" if none does.

    >>> _part_of_file("data/train-00000-of-00002.parquet"), _part_of_file("default/test/0.parquet")
    ('train', 'test')
    """
    for folder_or_file in reversed(name.split("/")):
        for word in re.split(r"[^A-Za-z]+", folder_or_file):
            if part_of(word):
                return word
    return ""


def _without_bytes(path: str, side: int) -> Image.Image:
    raise ValueError(f"the file holds only the path {path} and no bytes")
