"""The user's own images in one folder for each class, as torchvision's ImageFolder reads them.

The folders of super-classes, and folders `train` and `test`, may lie above those of the classes.
The content of the files is not read here. This is a type with options: each entry of a study that
has this type is a separate data set, with a store named after the entry.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from dmlbench.datasets import Row
from dmlbench.datasets.archives.reading import open_zip
from dmlbench.datasets.archives.spec import Archive
from dmlbench.datasets.metadata import is_zip
from dmlbench.datasets.names import normalize_label, normalize_path
from dmlbench.datasets.own_images import (
    Ignored,
    cached_facts,
    check_utf8,
    part_of,
    row_facts,
    split_rows,
)
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.reading import is_system_folder
from dmlbench.utils.text import count_of, listed

FACTS = {"version": 1, "channels": 3, "levels": [], "recall_at": [1, 2, 4, 8]}
"""The facts with default options."""
SOURCES: Mapping[str, Archive] = {}

SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe"}
    | {".jpeg", ".jpf", ".jpg", ".jpx", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".tga"}
    | {".tif", ".tiff", ".webp"}
)
"""Ends of names of images. It is no matter of the installed Pillow, because the rows are in a run's
key. An image of a kind that Pillow does not read is refused when it is decoded."""
EXTRAS = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin"})
"""What operating systems leave in folders, beside files that begin with a dot."""


class ImageFolder:
    """The data set in a folder. Paths are relative to the current folder.

    Args:
        folder: the folder, or a zip of it.
        levels: kinds of super-classes, the nearest to the class first: one folder above those of
            the classes for each.
        split: "classes" lets half of the classes of each nearest super-class train; null does so
            if there are no folders train and test.
        split_seed: draws the split.
        ignore: folders and files that are left out: names, or patterns as "*.gif".
        channels: 3 (colour) or 1 (gray); every image is converted.
        revision: raise it when images change and keep their paths: it makes earlier results stale.

    Raises:
        DatasetError: the folder is missing, or is not what it must be. The constructor raises it
            only if `folder` is empty, everything else when it reads.
    """

    SOURCES = SOURCES

    def __init__(
        self,
        *,
        folder: str = "",
        levels: tuple[str, ...] = (),
        split: Literal["classes"] | None = None,
        split_seed: int = 0,
        ignore: tuple[str, ...] = (),
        channels: Literal[1, 3] = 3,
        revision: int = 1,
    ) -> None:
        if not folder:
            raise DatasetError("folder: is missing: a folder with one folder for each class.")
        self.place = Path(folder)
        self._levels, self._ignore = tuple(levels), tuple(ignore)
        self._split, self._seed = split, split_seed
        self._declared = {"channels": channels, "levels": list(levels), "revision": revision}

    @cached_property
    def FACTS(self) -> dict[str, Any]:
        """The facts of the images for a run's key: a digest of their rows, and not their place."""
        reading = (self._levels, self._split, self._seed, self._ignore)
        if self._is_zip:
            module = "dmlbench.datasets.folder"
            facts = cached_facts(module, [self.place], reading, lambda: row_facts(self.rows))
        else:
            facts = row_facts(self.rows)
        return {**FACTS, **self._declared, **facts}

    @cached_property
    def rows(self) -> list[Row]:
        """A row for each image, sorted by path."""
        return self._read.rows

    def check(self) -> None:
        """Make sure that the images are there. Their list is made from the folder, so they are."""
        _ = self.rows

    def images(self, archives: Mapping[str, Path]) -> Iterator[tuple[Row, Any]]:
        """Yield each row and the source of its image, sorted by path."""
        from dmlbench.datasets.decoding import from_file, from_zip

        for line in self._read.left_out:
            print(f"{self.place}: {line}", flush=True)
        files = self._read.files
        if self._is_zip:
            # Read here: with Sources that open the zip, each worker would hold its directory
            with open_zip(self.place) as (archive, members):
                for row in self.rows:
                    yield row, from_zip(archive, members[files[row.path]])
        else:
            for row in self.rows:
                yield row, partial(from_file, f"{self.place}/{files[row.path]}")

    @property
    def _is_zip(self) -> bool:
        return is_zip(self.place) and self.place.is_file()

    @cached_property
    def _read(self) -> _Content:
        ignored = Ignored(self._ignore)
        files, left_out = _sort_out(list_files(self.place), ignored)
        if unused := ignored.unused():
            raise DatasetError(f"ignore: nothing in {self.place} is named {', '.join(unused)}.")
        if not files:
            found = f"{'; '.join(left_out)}" if left_out else "it is empty"
            raise DatasetError(f"folder: there are no images in {self.place}: {found}.")
        root, has_parts = _find_root([*files], len(self._levels))
        paths = {path.removeprefix(root): file for path, file in files.items()}
        rows = self._describe([*paths], has_parts)
        hint = "name it under `ignore`"
        return _Content(
            split_rows(self.place, rows, self._split, self._seed, hint), paths, left_out
        )

    def _describe(self, paths: Sequence[str], has_parts: bool) -> list[Row]:
        """The row of each image, with the name of its part in place of its split."""
        rows, misplaced = [], []
        depth = has_parts + len(self._levels) + 1
        for path in paths:
            folders = [normalize_label(name) for name in path.split("/")[:-1]]
            if len(folders) != depth:
                misplaced.append((len(folders) > depth, path))
                continue
            part = folders.pop(0) if has_parts else ""
            # the name of a class holds those of its super-classes, so no two have the same
            names = ["/".join(folders[:end]) for end in range(len(folders), 0, -1)]
            rows.append(Row(path, names[0], tuple(names[1:]), part, origin=f"{self.place}/{path}"))
        if misplaced:
            hint = "" if has_parts else _hint_of_parts(paths)
            raise DatasetError(self._explain_depth(misplaced, len(paths), has_parts) + hint)
        return rows

    def _explain_depth(
        self, misplaced: Sequence[tuple[bool, str]], total: int, has_parts: bool
    ) -> str:
        layout = [*reversed([f"<{name}>" for name in self._levels]), "<class>", "<image>"]
        expected = "/".join([*(["<train or test>"] if has_parts else []), *layout])
        title = (
            f"{self.place}: an image must be at {expected}, and {len(misplaced):,} of "
            f"{total:,} are not. `levels` names one kind of super-class for each "
            f"folder above the classes"
        )
        return listed(
            title,
            [f"too {'deep' if deep else 'high'}: {path}" for deep, path in sorted(misplaced)],
        )


def _hint_of_parts(paths: Sequence[str]) -> str:
    """A line about top folders as train_images and test_images; "" if there are none."""
    parts = {}
    for name in sorted({path.split("/")[0] for path in paths}):
        for word in re.split(r"[^A-Za-z]+", name):
            if part := part_of(word):
                parts[name] = part
    if len(set(parts.values())) < 2:
        return ""
    renamed = ", ".join(f"{name} to {part}" for name, part in parts.items() if not part_of(name))
    return f"\nIf these are the parts of a split, rename {renamed}."


class _Content(NamedTuple):
    """What a folder holds."""

    rows: list[Row]
    files: dict[str, str]
    """Path of a row -> path of its file in the folder or the zip."""
    left_out: list[str]
    """Lines about what is no image."""


def list_files(place: Path) -> Iterator[str]:
    """The path of each file in a folder or a zip; a folder without files is `path/`."""
    if is_zip(place) and place.is_file():
        with open_zip(place) as (_, members):
            yield from members
        return
    if not place.is_dir():
        other = "is neither a folder nor a .zip" if place.exists() else "is not there"
        raise DatasetError(f"folder: {place} {other}.")
    if is_system_folder(place):
        raise DatasetError(f"folder: {place} belongs to the system. Name the folder of the images.")
    seen = set()
    for folder, names, files in os.walk(place, onerror=_fail, followlinks=True):
        stat = Path(folder).stat()
        if (stat.st_dev, stat.st_ino) in seen:
            raise DatasetError(
                f"folder: {folder} is a link to a folder that holds it, or is twice."
            )
        seen.add((stat.st_dev, stat.st_ino))
        names[:] = [name for name in names if not _is_extra(name)]
        inner = "" if folder == str(place) else f"{folder[len(str(place)) :].lstrip('/')}/"
        yield from (f"{inner}{name}" for name in files)
        if inner and not names and not files:
            yield inner


def _fail(error: OSError) -> None:
    raise DatasetError(f"folder: cannot read {error.filename}: {error.strerror}.") from error


def _is_extra(name: str) -> bool:
    return name.startswith(".") or name.casefold() in EXTRAS


def _sort_out(paths: Iterator[str], ignored: Ignored) -> tuple[dict[str, str], list[str]]:
    """{normalised path: path} of the images, and lines about what else there is."""
    files: dict[str, str] = {}
    others: Counter[str] = Counter()
    empty, twice = [], []
    for path in paths:
        check_utf8(path)
        name = normalize_path(path)
        if any(map(_is_extra, name.split("/"))) or ignored.matches(name):
            continue
        if path.endswith("/"):
            empty.append(name)
        elif (suffix := PurePosixPath(name).suffix.casefold()) not in SUFFIXES:
            others[suffix or "no suffix"] += 1
        elif name in files:
            twice.append(name)
        else:
            files[name] = path
    if twice:
        raise DatasetError(listed("folder: names that differ only in their spelling", twice))
    left_out = []
    if others:
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(8))
        left_out.append(f"{count_of(others.total(), 'file')} left out, not images: {kinds}")
    if empty:
        left_out.append(f"{count_of(len(empty), 'folder')} without files: {', '.join(empty[:8])}")
    return dict(sorted(files.items())), left_out


def _find_root(paths: Sequence[str], levels: int) -> tuple[str, bool]:
    """The folder around all others, as "photos/" or "", and whether it holds train and test."""
    root = ""
    while True:
        folders = [path.removeprefix(root).split("/")[:-1] for path in paths]
        tops = {names[0] for names in folders if names}
        parts = {part_of(top) for top in tops} - {""}
        if len(parts) > 1:
            return root, True
        if len(tops) != 1 or not all(folders) or max(map(len, folders)) < levels + 2:
            return root, False
        root += f"{tops.pop()}/"
