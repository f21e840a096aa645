"""The files of an archive, compared with what a data set expects before any image is decoded.

People unpack archives and pack them again: as a zip or a tar, below another folder or below none,
with other files beside the images. So folders above the expected ones do not matter, nor do upper
and lower case. What a data set does not name is left out: its lists, or its counts, decide.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from dmlbench.datasets import Row
from dmlbench.datasets.archives.reading import member_names, read_archive
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.text import count_of, listed, some_of

SHOWN = 3
"""Names that a sentence shows of many."""


class Members:
    """The files of one archive by the paths that its data set knows."""

    def __init__(self, archive: Path, layout: str) -> None:
        """Read the names of all files; of a tar, this reads the whole file.

        Args:
            archive: a zip or a tar, whatever its name ends with.
            layout: the files that the data set expects, for messages.

        Raises:
            DatasetError: the archive is hostile, damaged or no archive.
        """
        self.archive, self.layout = archive, layout
        self._names = member_names(archive)
        self._keys = [*map(str.casefold, self._names)]

    def find(self, path: str) -> str:
        """The member that is the file `path`, below any folder.

        Raises:
            DatasetError: there is none; the text describes the expected layout and the found one.
        """
        end = f"/{path.casefold()}"
        members = [
            name
            for name, key in zip(self._names, self._keys, strict=True)
            if f"/{key}".endswith(end)
        ]
        if not members:
            raise self._other_layout(path)
        return min(members, key=lambda name: (name.count("/"), name))

    def match(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """Yield a match for each file whose path, without folders above it, matches `pattern`.

        Of several copies of a path, only one is yielded.

        Raises:
            DatasetError: no file matches.
        """
        matched = set()
        for name in self._names:
            parts = name.split("/")
            paths = ("/".join(parts[start:]) for start in range(len(parts)))
            match = next(filter(None, map(pattern.fullmatch, paths)), None)
            if match and match[0] not in matched:
                matched.add(match[0])
                yield match
        if not matched:
            raise self._other_layout()

    def images(self, rows: Mapping[str, Row]) -> Iterator[tuple[Row, bytes]]:
        """Yield row and content of each image, in the order of the archive.

        Args:
            rows: by path, as the annotations write it, in the form of `normalize_path`.

        Raises:
            DatasetError: before the first image, if images are missing; the text names the lines
                that list them, and their classes.
        """
        by_member = self._locate(rows)
        for name, content in read_archive(self.archive):
            if name in by_member:
                yield by_member[name], content

    def _locate(self, rows: Mapping[str, Row]) -> dict[str, Row]:
        """The row of each member that is an image of the data set."""
        paths = {path.casefold(): path for path in rows}
        folders = Counter(folder for key in self._keys for folder in _folders_above(key, paths))
        if not folders:
            path, row = next(iter(rows.items()))
            raise self._other_layout(f"{path} ({row.origin})" if row.origin else path)
        root = max(folders, key=lambda folder: (folders[folder], -len(folder), folder))
        members: dict[str, str] = {}
        unlisted = []
        suffixes = tuple({PurePosixPath(path).suffix.casefold() for path in rows})
        for name, key in zip(self._names, self._keys, strict=True):
            if key.startswith(root) and (listed_path := paths.get(key.removeprefix(root))):
                # of two names that differ in case, the exact one
                if listed_path not in members or name.endswith(listed_path):
                    members[listed_path] = name
            elif key.endswith(suffixes):
                unlisted.append(name)
        self._check_missing(rows, members)
        if unlisted:
            total = count_of(len(unlisted), "image")
            names = some_of(unlisted, SHOWN)
            print(f"{self.archive}: {total} left out, not listed: {names}", flush=True)
        return {name: rows[path] for path, name in members.items()}

    def _check_missing(self, rows: Mapping[str, Row], members: Mapping[str, str]) -> None:
        missing = {path: row for path, row in rows.items() if path not in members}
        if missing:
            images = count_of(len(missing), "image")
            classes = count_of(len({row.class_name for row in missing.values()}), "class")
            verb = "is" if len(missing) == 1 else "are"
            title = f"{self.archive}: {images} of {len(rows):,} {verb} not in it, of {classes}"
            lines = [
                f"{row.origin}: no {path}, of the class {row.class_name}"
                for path, row in missing.items()
            ]
            raise DatasetError(listed(title, lines))

    def _other_layout(self, path: str = "") -> DatasetError:
        tops = _top_level(self._names, "")
        while len(tops) == 1 and (top := next(iter(tops))).endswith("/"):
            tops = _top_level(self._names, top)  # what is in the only folder says more
        texts = [
            f"{top} ({count_of(count, 'file')})" if top.endswith("/") else top
            for top, count in sorted(tops.items())
        ]
        missing = f": there is no {path}" if path else ""
        return DatasetError(
            f"{self.archive}: it has another layout than the expected one{missing}.\n"
            f"    expected  {self.layout}; folders above do not matter\n"
            f"    found     {some_of(texts, SHOWN) or 'no files'}"
        )


def _folders_above(key: str, paths: Mapping[str, str]) -> Iterator[str]:
    """Each beginning of `key` after which one of `paths` remains."""
    start = 0
    while True:
        if key[start:] in paths:
            yield key[:start]
        start = key.find("/", start) + 1
        if not start:
            return


def _top_level(names: Iterable[str], folder: str) -> Counter[str]:
    """How many files are in each folder in `folder`, and the files in it themselves."""
    inside = (name.removeprefix(folder).partition("/") for name in names)
    return Counter(folder + name + slash for name, slash, _ in inside)
