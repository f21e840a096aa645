"""Archives: found or downloaded, verified, and read without being unpacked.

Nothing of an archive is ever written to the disk. What would lead out of a folder, or fill a disk
or the memory, if somebody unpacked it is refused all the same: such an archive is not what it
claims to be. The limits leave room above the real data sets: the largest member is the annotations
of iNaturalist 2018 (below 0.2 GB), images do not shrink, and lists of paths shrink to a twentieth.
"""

from __future__ import annotations

import fcntl
import gzip
import re
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NoReturn, cast

from dmlbench.datasets import Archive, DatasetError, Sources, archive_groups
from dmlbench.datasets.bar import size
from dmlbench.datasets.checksums import checksum, remember

LARGEST = 2**29
"""Bytes of a member, which is read as a whole."""
RATIO = 100
"""Bytes out of an archive for a byte of it, beyond the first ALLOWANCE. Deflate reaches 1,032."""
ALLOWANCE = 2**26
HEADER = 2**20
"""Bytes that a tar may say of one member."""

DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError),
    # what the parsers of the standard library meet in odd bytes
    *(RuntimeError, NotImplementedError, ValueError, OverflowError, LookupError),
)
"""What reading an archive raises; an OSError with an errno is the disk's fault."""


class _Missing(Exception):
    """An archive is not there; the text says how to get it."""


def fetch(sources: Sources, folder: Path, checksums: Mapping[str, str]) -> dict[str, Path]:
    """Path in `folder` of each archive of `sources`: there already, or downloaded now; verified.

    Of several groups that one is taken which is there, else the first that can be had. `checksums`
    names those of archives that differ from the official ones. Of several processes that want the
    same archive one fetches it. Raises DatasetError, and never touches a file that was there.
    """
    if not isinstance(checksums, Mapping):
        raise DatasetError(f'checksums: {checksums!r} is not {{"<archive>": "md5:...", ...}}')
    groups = archive_groups(sources)
    names = [*dict.fromkeys(name for group in groups for name in group)]
    if unknown := sorted(checksums.keys() - names):
        known = ", ".join(names) or "none"
        raise DatasetError(f"checksum of an unknown archive: {', '.join(unknown)} (known: {known})")
    if not groups:
        return {}
    there = [group for group in groups if all((folder / name).is_file() for name in group)]
    missing = []
    for group in there[:1] or groups:
        try:
            return _fetch_group(group, folder, checksums)
        except _Missing as error:
            missing.append(str(error))
    raise DatasetError("\nor, instead of that,\n".join(missing))


def contents(
    sources: Sources, paths: Mapping[str, Path], checksums: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Checksum and size of each archive that `fetch` found, for a manifest."""
    groups = archive_groups(sources)
    official = {name: archive for group in groups for name, archive in group.items()}
    return {
        name: {
            "checksum": checksum(path, _algorithm(checksums.get(name, official[name].checksum))),
            "size": path.stat().st_size,
        }
        for name, path in paths.items()
    }


def read_zip(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file in a zip, by name; what macOS adds to archives is left out.

    The order is of names and not of the archive, so a re-made archive gives the same. Raises
    DatasetError for what is hostile, damaged, encrypted or no zip.
    """
    name = ""
    try:
        with zipfile.ZipFile(path) as archive:
            for name, member in sorted(_zip_members(path, archive).items()):
                yield name, archive.read(member)
    except DAMAGE as error:
        raise DatasetError(f"{path}: cannot read {name or 'it'}: {error}") from error


def read_tar(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file in a tar or tar.gz, in the order of the archive: one pass, in
    memory for the largest member. What macOS adds is left out.

    Raises DatasetError for what is hostile, damaged, truncated or no tar, when it gets there.
    """
    name = ""
    names: set[str] = set()
    try:
        with _opened(path) as stream, tarfile.TarFile(fileobj=cast(IO[bytes], stream)) as archive:
            while member := archive.next():
                archive.members.clear()  # type: ignore[attr-defined]  # grows with every member
                name = _checked_name(path, member.name)
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    _refuse(path, name, "is a link, a device or a sparse file")
                if not 0 <= member.size <= LARGEST:
                    _refuse(path, name, f"has {size(member.size)}; at most {size(LARGEST)} may be")
                if name in names:
                    _refuse(path, name, "is there twice")
                names.add(name)
                content = stream.content(member.offset_data, member.size)
                if stream.tell() > RATIO * stream.taken() + ALLOWANCE:
                    _refuse(path, name, "unpacks to far more than its size in the archive: a bomb")
                if not _of_macos(name):
                    yield name, content
            stream.finish()
    except DAMAGE as error:
        after = f"it after {name}" if name else "it"
        raise DatasetError(f"{path}: cannot read {after}: {error}") from error


@contextmanager
def open_zip(path: Path) -> Iterator[tuple[zipfile.ZipFile, Mapping[str, zipfile.ZipInfo]]]:
    """A zip and its files by name, as those of `read_zip`, to be read in any order.

    Raises DatasetError for what is hostile, encrypted or no zip.
    """
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
            members = _zip_members(path, archive)
        except DAMAGE as error:
            raise DatasetError(f"{path}: cannot read this zip: {error}.") from error
        yield archive, members


def read_member(path: Path, name: str) -> bytes:
    """Content of one file of a zip or a tar; of a tar that is a pass up to there."""
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if not is_zip:
        for found, content in read_tar(path):
            if found == name:
                return content
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                if member := _zip_members(path, archive).get(name):
                    return archive.read(member)
        except DAMAGE as error:
            raise DatasetError(f"{path}: cannot read {name}: {error}") from error
    raise DatasetError(f"{path}: it holds no {name}")


def _fetch_group(
    group: Mapping[str, Archive], folder: Path, checksums: Mapping[str, str]
) -> dict[str, Path]:
    """Path of each archive; raises _Missing with all that are to be had by hand alone, before
    anything is downloaded."""
    gated = [
        _by_hand(folder / name, archive, checksums.get(name, archive.checksum))
        for name, archive in group.items()
        if not archive.urls and not (folder / name).is_file()
    ]
    if gated:
        raise _Missing("\n".join(gated))
    failed = []
    for name, archive in group.items():
        expected = checksums.get(name, archive.checksum)
        with _alone(folder / name):
            if (folder / name).is_file():
                _verify(folder / name, archive, expected)
            else:
                failed += _download(folder / name, archive, expected)
    if failed:
        hint = "`dmlbench data fetch` does it on a machine with internet, into the same folder."
        raise _Missing("\n".join([*failed, hint]))
    return {name: folder / name for name in group}


def _download(path: Path, archive: Archive, expected: str | None) -> list[str]:
    """What to do by hand where it fails."""
    from dmlbench.datasets.transfer import Unavailable, download

    try:
        remember(path, download(archive.urls, path, expected))
    except Unavailable as error:
        return [_by_hand(path, archive, expected, str(error))]
    return []


def _by_hand(path: Path, archive: Archive, expected: str | None, failure: str = "") -> str:
    lines = failure.splitlines()
    state = "cannot be downloaded:" if lines else "is not there, and cannot be fetched for you."
    which = f"checksum {expected}" if expected else "its checksum is not published"
    return "\n    ".join([f"{path.name} {state}", *lines, f"Put it at {path} ({which})."]) + (
        f"\n    {archive.by_hand}" if archive.by_hand else ""
    )


def _verify(path: Path, archive: Archive, expected: str | None) -> None:
    found = checksum(path, _algorithm(expected))
    if expected is None:
        print(f"{path}: {found} (no checksum of it is published)", file=sys.stderr)
    elif found != expected.lower():
        again = f" to have it downloaded from {archive.urls[0]}" if archive.urls else ""
        raise DatasetError(
            f"{path}: wrong checksum\n  found    {found}\n  expected {expected}\n"
            f"Delete the file{again}, or, if it is what you want, name its checksum under "
            f"`checksums` of the data set's entry in the study. {archive.by_hand}".rstrip()
        )


def _algorithm(expected: str | None) -> str:
    return expected.partition(":")[0] if expected else "sha256"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time for this archive; others wait and find it. Of an archive in a folder
    that others own there is nothing to lock."""
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(path.with_name(f".{path.name}.lock").open("a"))
        except OSError as error:
            if not path.is_file():
                raise DatasetError(f"{path} cannot be written: {error.strerror}") from None
        else:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{path.name}: another process works on it: waiting", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _zip_members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of a zip, by name, after a look at all that it holds."""
    members: dict[str, zipfile.ZipInfo] = {}
    total = 0
    for member in archive.infolist():
        name = _checked_name(path, member.filename)
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            _refuse(path, name, "is a link or a device")
        if member.is_dir():
            continue
        if member.flag_bits & 1:
            _refuse(path, name, "is encrypted: make a zip without a password of it")
        if member.file_size > LARGEST:
            _refuse(path, name, f"has {size(member.file_size)}; at most {size(LARGEST)} may be")
        if name in members:
            _refuse(path, name, "is there twice")
        members[name] = member
        total += member.file_size
    if total > RATIO * path.stat().st_size + ALLOWANCE:
        largest = max(members, key=lambda name: members[name].file_size)
        _refuse(path, largest, f"and others unpack to {size(total)}, far more than the zip: a bomb")
    return {name: member for name, member in members.items() if not _of_macos(name)}


class _Stream:
    """The bytes of a tar, forward only, and as many at once as a header or a member may have:
    what tarfile reads from, so that no header makes it go round in circles or fill the memory."""

    def __init__(self, raw: IO[bytes], unpacked: IO[bytes]) -> None:
        self.raw, self.unpacked = raw, unpacked
        self._last = b""

    def read(self, count: int) -> bytes:
        if not 0 <= count <= HEADER:
            raise tarfile.ReadError(f"a header of {count} bytes")
        self._last = self.unpacked.read(count)
        return self._last

    def seek(self, position: int) -> None:
        if not 0 <= position - self.tell() <= LARGEST:
            raise tarfile.ReadError("a header leads elsewhere")
        self.unpacked.seek(position)

    def tell(self) -> int:
        return self.unpacked.tell()

    def taken(self) -> int:
        """Bytes of the file that were read so far."""
        return self.raw.tell()

    def content(self, position: int, count: int) -> bytes:
        self.seek(position)
        content = self.unpacked.read(count)
        if len(content) < count:
            raise EOFError("it ends in the middle of a file")
        return content

    def finish(self) -> None:
        """Make sure that the archive ended where it ends: tarfile takes a header that is cut off or
        damaged for the end as well; and gzip's checksum stands after the last byte."""
        if self._last != bytes(tarfile.BLOCKSIZE):
            raise EOFError("it ends without the mark of its end")
        while self.unpacked.read(HEADER):
            if self.tell() > RATIO * self.taken() + ALLOWANCE:
                raise tarfile.ReadError("what follows its end is a bomb")


@contextmanager
def _opened(path: Path) -> Iterator[_Stream]:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not packed:
            yield _Stream(raw, raw)
        else:
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield _Stream(raw, cast(IO[bytes], unpacked))


def _checked_name(path: Path, name: str) -> str:
    """The name without what means nothing ("./", "//"), if it stays inside the archive."""
    try:
        name.encode()
    except UnicodeEncodeError:
        _refuse(
            path, name.encode(errors="backslashreplace").decode(), "has a name that is no UTF-8"
        )
    if ".." in re.split(r"[/\\]", name) or re.match(r"[/\\]|[A-Za-z]:", name):
        _refuse(path, name, "leads out of the archive")
    return str(PurePosixPath(name))


def _refuse(path: Path, name: str, why: str) -> NoReturn:
    raise DatasetError(f"{path}: this archive is refused: {name} {why}.")


def _of_macos(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == "__MACOSX" or parts[-1].startswith("._") or parts[-1] == ".DS_Store"
