"""Archives: found or downloaded, verified, and read without being unpacked."""

from __future__ import annotations

import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from dmlbench.datasets import Archive, DatasetError

Group = Mapping[str, Archive]
Sources = Group | tuple[Group, ...]


def fetch(sources: Sources, folder: Path, checksums: Mapping[str, str]) -> dict[str, Path]:
    """Path in `folder` of each archive of `sources`: there already, or downloaded now; verified.

    `checksums` names those of archives that differ from the official ones. Raises DatasetError,
    and never touches a file that was there.
    """
    groups = sources if isinstance(sources, tuple) else (sources,)
    there = [group for group in groups if all((folder / name).exists() for name in group)]
    group = (there or groups)[0]
    if unknown := sorted(checksums.keys() - {name for group in groups for name in group}):
        known = ", ".join(name for group in groups for name in group) or "none"
        raise DatasetError(f"checksum of an unknown archive: {', '.join(unknown)} (known: {known})")
    paths = {}
    for name, archive in group.items():
        paths[name] = folder / name
        expected = checksums.get(name, archive.checksum)
        if not paths[name].exists():
            _download(archive.urls[0], paths[name], expected)
        elif expected:
            _verify(paths[name], archive.urls[0] if archive.urls else archive.by_hand, expected)
    return paths


def read_zip(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file in a zip, by name; what macOS adds to archives is left out.

    The order is of names and not of the archive, so a re-made archive gives the same images the
    same ids. Raises DatasetError for what is damaged, encrypted or no zip.
    """
    name = ""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if not (name.endswith("/") or _of_macos(name)):
                    yield name, archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DatasetError(f"{path}: cannot read {name or 'it'}: {error}") from error


def read_tar(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file in a tar, in its order; see `read_zip`."""
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None and not _of_macos(member.name):
                    yield member.name, file.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DatasetError(f"{path}: cannot read it: {error}") from error


def read_member(path: Path, name: str) -> bytes:
    """Content of one file of a zip or tar."""
    for member, content in read_zip(path) if zipfile.is_zipfile(path) else read_tar(path):
        if member == name:
            return content
    raise DatasetError(f"{path}: it has no {name}")


def _of_macos(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return parts[0] == "__MACOSX" or parts[-1].startswith("._") or parts[-1] == ".DS_Store"


def _verify(path: Path, url: str, expected: str) -> None:
    import pooch

    algorithm, _, digest = expected.rpartition(":")
    found = pooch.file_hash(str(path), alg=algorithm or "sha256")
    if found != digest.lower():
        raise DatasetError(
            f"{path}: wrong checksum\n  found    {algorithm}:{found}\n  expected {expected}\n"
            f"Delete the file to have it downloaded from {url}, or, if it is what you want, name "
            f"its checksum under `checksums` of the data set's entry in the study."
        )


def _download(url: str, path: Path, expected: str | None) -> None:
    import pooch

    try:
        # under another name in the same folder, renamed once its checksum is right
        pooch.retrieve(url, expected, path.name, path.parent, progressbar=sys.stderr.isatty())
    except OSError as error:  # no internet, no such page, no space: requests' errors are OSErrors
        raise DatasetError(
            f"{url}: cannot download: {error}\n"
            f"Get it on a machine with internet and put it at {path} (checksum {expected})."
        ) from error
    except ValueError as error:
        raise DatasetError(
            f"{url}: the download is not the expected file: {error}\n"
            f"Get the right one (checksum {expected}) from elsewhere and put it at {path}."
        ) from error
