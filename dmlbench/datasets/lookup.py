"""Find the images that a table names, in a folder or in a zip that may spell them otherwise.

A path is looked up as it is written. If that fails, names count as equal whose normalised forms are
equal, so it does not matter whether macOS, Windows or Linux made the folder. Upper and lower case
differ; a message names the file with the other case.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from dmlbench.datasets.names import normalize_path
from dmlbench.utils.errors import DatasetError


class Found(NamedTuple):
    """Where the images are."""

    files: dict[str, str]
    """Path -> the file, for the paths that the disk spells otherwise."""
    missing: dict[str, str]
    """Path -> why there is no such image."""


def find_in_folder(top: Path, paths: Collection[str]) -> Found:
    """Look up normalised paths in the folder `top`.

    Raises:
        DatasetError: a folder cannot be read.
    """
    names = _names_by_folder(top, paths)
    folder, result = _Folder(top), Found({}, {})
    for path in paths:
        parent, _, name = path.rpartition("/")
        if name in names[parent]:
            continue
        matches = [match for match in folder.find(path) if (top / match).is_file()]
        if len(matches) == 1:
            result.files[path] = matches[0]
        elif matches:
            same = " and ".join(map(ascii, sorted(matches)[:2]))
            result.missing[path] = f"{len(matches)} files have the name {path}: {same}"
        else:
            result.missing[path] = folder.explain(path)
    return result


def find_in_zip(members: Collection[str], root: str, paths: Iterable[str]) -> dict[str, str]:
    """The normalised paths that a zip does not hold, and why.

    Args:
        members: names of the zip's files.
        root: what precedes the paths in the zip: "" or a folder and a slash.
        paths: to be looked up.
    """
    missing = [path for path in paths if root + path not in members]
    by_name: dict[str, list[str]] = defaultdict(list)
    for member in members if missing else ():
        by_name[_file_name(member)].append(member)
    return {path: _explain(path, root + path, by_name[_file_name(path)]) for path in missing}


def _names_by_folder(top: Path, paths: Iterable[str]) -> dict[str, set[str]]:
    """The names of the files in each folder of `paths`; to list folders is faster than to look at
    each file."""
    names: dict[str, set[str]] = {}
    for parent in {path.rpartition("/")[0] for path in paths}:
        names[parent] = {entry.name for entry in _scan(top / parent) if entry.is_file()}
    return names


class _Folder:
    """A folder whose names are compared in another form than that of the disk."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._listings: dict[tuple[str, Callable[[str], str]], Mapping[str, list[str]]] = {}

    def find(self, path: str, form: Callable[[str], str] = normalize_path) -> Iterator[str]:
        """Yield each file or folder whose path has the form `path`."""
        yield from self._find("", form(path), form)

    def explain(self, path: str) -> str:
        """Why there is no file `path`."""
        for match in self.find(path):
            if (self._top / match).is_dir():
                return f"{path} is a folder"
            return f"{path} is a link to a file that is not there"
        other = next((match for match in self.find(path, _caseless)), None)
        if other is None and path.startswith(f"{self._top.name}/"):
            inner = path.removeprefix(f"{self._top.name}/")
            other = next((match for match in self.find(inner)), None)
        return f"no file {path}" + (f"; there is {other}" if other else "")

    def _find(self, folder: str, rest: str, form: Callable[[str], str]) -> Iterator[str]:
        listing = self._listing(folder, form)
        for name in listing.get(rest, ()):
            yield f"{folder}{name}"
        head, slash, tail = rest.partition("/")
        for name in listing.get(head, ()) if slash else ():
            yield from self._find(f"{folder}{name}/", tail, form)

    def _listing(self, folder: str, form: Callable[[str], str]) -> Mapping[str, list[str]]:
        if (folder, form) not in self._listings:
            names: dict[str, list[str]] = defaultdict(list)
            for entry in _scan(self._top / folder):
                names[form(entry.name)].append(entry.name)
            self._listings[folder, form] = names
        return self._listings[folder, form]


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """What is in `folder`; nothing if it is no folder."""
    try:
        with os.scandir(folder) as entries:
            return [*entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except ValueError:  # no name of the disk holds a NUL
        return []
    except OSError as error:
        raise DatasetError(f"images: cannot read {folder}: {error.strerror}.") from error


def _caseless(path: str) -> str:
    return normalize_path(path).casefold()


def _file_name(path: str) -> str:
    return path.rpartition("/")[2].casefold()


def _explain(path: str, member: str, candidates: Iterable[str]) -> str:
    """Why `member` is not in a zip that holds `candidates` with the same file name."""
    for candidate in candidates:
        longer, shorter = sorted((candidate, member), key=len, reverse=True)
        if f"/{longer}".casefold().endswith(f"/{shorter}".casefold()):
            return f"no file {path}; there is {candidate}"
    return f"no file {path}"
