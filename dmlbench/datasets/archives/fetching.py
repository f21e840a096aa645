"""Finding the archives of a data set in a folder, or downloading them, and verifying them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dmlbench.datasets.archives.checksums import checksum, parse_checksum, remember
from dmlbench.datasets.archives.hub import list_files, request_headers
from dmlbench.datasets.archives.spec import (
    Archive,
    HubFiles,
    Sources,
    archive_groups,
    checksum_algorithm,
)
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.locks import wait_for_lock
from dmlbench.utils.text import short_repr


class _MissingArchives(Exception):
    """Archives are missing; the text says how to get them."""


def fetch(sources: Sources, folder: Path, checksums: Mapping[str, str]) -> dict[str, Path]:
    """Find or download the archives of `sources` in `folder`, and verify them.

    If there are several groups of archives, take the one that is complete in `folder`, else the
    first that can be downloaded. If several processes want the same archive, one downloads it and
    the others wait. A file that exists is never changed.

    Args:
        sources: `SOURCES` of a data set.
        folder: where the archives are, or go.
        checksums: {file name: "md5:..."}, in place of the official checksums.

    Returns:
        {file name: path} of one group; {} if the data set needs no archive.

    Raises:
        DatasetError: archives cannot be had, have another checksum, or cannot be written.
    """
    if not isinstance(checksums, Mapping):
        shown = short_repr(checksums)
        raise DatasetError(f'checksums: {shown} is not {{"<archive>": "md5:...", ...}}')
    groups: list[Mapping[str, Archive]] = archive_groups(sources)
    headers: Mapping[str, str] = {}
    if isinstance(sources, HubFiles):
        groups, headers = [list_files(sources, folder)], request_headers(sources, folder)
        folder = sources.folder(folder)
    names = [*dict.fromkeys(name for group in groups for name in group)]
    if unknown := sorted(checksums.keys() - names):
        known = ", ".join(names) or "none"
        raise DatasetError(f"checksum of an unknown archive: {', '.join(unknown)} (known: {known})")
    if not groups:
        return {}
    checksums = {name: parse_checksum(text, name) for name, text in checksums.items()}
    complete = [group for group in groups if all((folder / name).is_file() for name in group)]
    instructions = []
    for group in complete[:1] or groups:
        try:
            return _fetch_group(group, folder, checksums, headers)
        except _MissingArchives as error:
            instructions.append(str(error))
    raise DatasetError("\nor, instead of that,\n".join(instructions))


def describe_archives(
    sources: Sources, paths: Mapping[str, Path], checksums: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """{"checksum": ..., "size": bytes} of each archive in `paths`, as `fetch` returned it."""
    groups = archive_groups(sources)
    official = {name: archive.checksum for group in groups for name, archive in group.items()}
    return {
        name: {
            "checksum": checksum(path, checksum_algorithm(checksums.get(name, official.get(name)))),
            "size": path.stat().st_size,
        }
        for name, path in paths.items()
    }


def _fetch_group(
    group: Mapping[str, Archive],
    folder: Path,
    checksums: Mapping[str, str],
    headers: Mapping[str, str],
) -> dict[str, Path]:
    """The path of each archive in `group`.

    Raises:
        _MissingArchives: before any download, if people must get some of the archives themselves.
    """
    by_hand = [
        _instructions(folder / name, archive, checksums.get(name, archive.checksum))
        for name, archive in group.items()
        if not archive.urls and not (folder / name).is_file()
    ]
    if by_hand:
        raise _MissingArchives("\n".join(by_hand))
    failed = []
    for name, archive in group.items():
        expected = checksums.get(name, archive.checksum)
        with _locked(folder / name):
            if (folder / name).is_file():
                _verify(folder / name, archive, expected)
            else:
                failed += _download(folder / name, archive, expected, headers)
    if failed:
        hint = "`dmlbench data fetch` does it on a machine with internet, into the same folder."
        raise _MissingArchives("\n".join([*failed, hint]))
    return {name: folder / name for name in group}


def _download(
    path: Path, archive: Archive, expected: str | None, headers: Mapping[str, str]
) -> list[str]:
    """Download `path`; if that fails, return what a person can do instead."""
    from dmlbench.datasets.archives.download import DownloadOptions, Unavailable, download

    try:
        options = DownloadOptions(headers=headers)
        remember(path, download(archive.urls, path, expected, options))
    except Unavailable as error:
        return [_instructions(path, archive, expected, str(error))]
    return []


def _instructions(path: Path, archive: Archive, expected: str | None, failure: str = "") -> str:
    """How a person gets an archive, after the answers of its addresses in `failure`."""
    answers = failure.splitlines()
    state = "cannot be downloaded:" if answers else "is not there, and cannot be fetched for you."
    about = f"checksum {expected}" if expected else "its checksum is not published"
    return "\n    ".join([f"{path.name} {state}", *answers, f"Put it at {path} ({about})."]) + (
        f"\n    {archive.by_hand}" if archive.by_hand else ""
    )


def _verify(path: Path, archive: Archive, expected: str | None) -> None:
    actual = checksum(path, checksum_algorithm(expected))
    if expected is None:
        print(f"{path}: {actual} (no checksum of it is published)", file=sys.stderr)
    elif actual != expected.lower():
        again = f" to have it downloaded from {archive.urls[0]}" if archive.urls else ""
        raise DatasetError(
            f"{path}: wrong checksum\n  found    {actual}\n  expected {expected}\n"
            f"Delete the file{again}, or, if it is what you want, name its checksum under "
            f"`checksums` of the data set's entry in the study. {archive.by_hand}".rstrip()
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time work on the archive `path`; others wait and then find it.

    An archive in a folder that belongs to other people needs no lock: nobody writes to it.
    """
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(path.with_name(f".{path.name}.lock").open("a"))
        except OSError as error:
            if not path.is_file():
                raise DatasetError(f"{path} cannot be written: {error.strerror}") from None
        else:
            wait_for_lock(lock, path, f"{path.name}: another process works on it: waiting")
        yield
