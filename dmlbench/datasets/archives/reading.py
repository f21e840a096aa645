"""Reading archives without unpacking them.

Nothing of an archive is ever written to the disk. A member that would be dangerous to unpack,
because it leads out of the folder or fills the disk or the memory, is refused too: such an archive
is not what it claims to be. The real data sets are far below the limits: the largest member is the
annotations of iNaturalist 2018 (less than 0.2 GB), compression does not shrink images, and it
shrinks lists of paths to a twentieth. Blank scans shrink more: an image of no more bytes than its
pixels need is no bomb.

The names of the members are those of `names.normalize_path`, whatever program wrote the archive.
"""

from __future__ import annotations

import gzip
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, NoReturn, cast

from dmlbench.datasets.names import normalize_path
from dmlbench.utils.errors import DatasetError
from dmlbench.utils.reading import open_file
from dmlbench.utils.text import error_reason, format_bytes

MAX_MEMBER_BYTES = 2**29
"""A member is read as a whole, so it must fit into memory."""
MAX_RATIO = 100
"""An archive may unpack to this many times its size, plus RATIO_FREE_BYTES. Deflate can reach 1,032
times."""
RATIO_FREE_BYTES = 2**26
MAX_PIXEL_BYTES = 8
"""Most bytes of one pixel in an image file without compression: four channels of 16 bits."""
MAX_HEADER_BYTES = 2**20
"""Bytes that a tar may use to describe one member."""

ZIP_METHODS = {0: "stored", 8: "deflate", 12: "bzip2", 14: "LZMA"}
"""The compressions of zips that the standard library reads on every version of Python."""
OTHER_ZIP_METHODS = {9: "deflate64", 93: "Zstandard", 95: "xz", 98: "PPMd"}
OTHER_FORMATS = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard",
    b"<": "a page of HTML or XML, as a failed download leaves it",
}
"""What else is found under the name of an archive, by its first bytes."""
UTF8_NAME = 0x800
"""The flag of a zip's member whose name is UTF-8. Without it Python reads the name as cp437."""

READ_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    OSError,
    # the parsers of the standard library raise these for unexpected bytes
    RuntimeError,
    NotImplementedError,
    ValueError,
    OverflowError,
    LookupError,
)
"""What reading a damaged archive raises; an OSError with an errno is the fault of the disk."""


def read_archive(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of every file in a zip, tar or tar.gz.

    The content of the file decides what it is, and not its name. The files of a zip are sorted by
    name, so a zip that was made again gives the same. Those of a tar come in the order of the
    archive: this takes one pass, and memory for the largest member. The extra files that macOS adds
    are left out.

    Raises:
        DatasetError: the archive is hostile, damaged, truncated or encrypted, or no archive. For a
            tar the error comes when the reading reaches the place.
    """
    yield from _read_zip(path) if _is_zip_content(path) else _read_tar(path)


def _is_zip_content(path: Path) -> bool:
    """Whether the file `path` is a zip by its first bytes; refused if it is neither zip nor tar."""
    try:
        with open_file(path) as file:
            head = file.read(8)
    except OSError as error:
        raise DatasetError(f"{path}: cannot read it: {error.strerror}") from error
    for start, description in OTHER_FORMATS.items():
        if head.startswith(start):
            raise DatasetError(f"{path}: this is {description}; zip, tar and tar.gz can be read")
    return head.startswith(b"PK")


def _read_zip(path: Path) -> Iterator[tuple[str, bytes]]:
    name = ""
    try:
        with zipfile.ZipFile(path) as archive:
            for name, member in sorted(_zip_members(path, archive).items()):
                yield name, archive.read(member)
    except READ_ERRORS as error:
        raise DatasetError(f"{path}: cannot read {name or 'it'}: {error_reason(error)}") from error


def _read_tar(path: Path) -> Iterator[tuple[str, bytes]]:
    name = ""
    names: set[str] = set()
    try:
        with (
            _open_tar_stream(path) as stream,
            tarfile.TarFile(fileobj=cast(IO[bytes], stream)) as archive,
        ):
            while member := archive.next():
                archive.members.clear()  # type: ignore[attr-defined]  # grows with every member
                name = _safe_name(path, member.name)
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    _refuse(path, name, "is a link, a device or a sparse file")
                if not 0 <= member.size <= MAX_MEMBER_BYTES:
                    _refuse(path, name, _too_large(member.size))
                if name in names:
                    _refuse(path, name, "is there twice")
                names.add(name)
                content = stream.content(member.offset_data, member.size)
                if stream.tell() > MAX_RATIO * stream.bytes_read() + RATIO_FREE_BYTES:
                    _refuse(path, name, "unpacks to far more than its size in the archive: a bomb")
                if not _is_macos_extra(name):
                    yield name, content
            stream.check_end()
    except READ_ERRORS as error:
        place = f"it after {name}" if name else "it"
        hint = "" if name else " (only zip, tar and tar.gz can be read)"
        raise DatasetError(f"{path}: cannot read {place}: {error_reason(error)}{hint}") from error


@contextmanager
def open_zip(path: Path) -> Iterator[tuple[zipfile.ZipFile, Mapping[str, zipfile.ZipInfo]]]:
    """Open a zip and give its files by name, those of `read_archive`, to read in any order.

    Raises:
        DatasetError: the zip is hostile, encrypted or no zip.
    """
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(open_file(path))))
            members = _zip_members(path, archive)
        except READ_ERRORS as error:
            raise DatasetError(f"{path}: cannot read this zip: {error_reason(error)}.") from error
        yield archive, members


def member_names(path: Path) -> list[str]:
    """The names of the files in a zip or a tar, in the order of `read_archive`.

    A zip has them in its directory, a tar is read as a whole.

    Raises:
        DatasetError: the archive is hostile, damaged or no archive.
    """
    if not _is_zip_content(path):
        return [name for name, _ in _read_tar(path)]
    with open_zip(path) as (_, members):
        return sorted(members)


def read_member(path: Path, name: str) -> bytes:
    """Content of the file `name` in a zip or a tar; a tar is read up to that file.

    Raises:
        DatasetError: the archive is not readable, or does not hold the file.
    """
    if not _is_zip_content(path):
        for member_name, content in _read_tar(path):
            if member_name == name:
                return content
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                if member := _zip_members(path, archive).get(name):
                    return archive.read(member)
        except READ_ERRORS as error:
            raise DatasetError(f"{path}: cannot read {name}: {error_reason(error)}") from error
    raise DatasetError(f"{path}: it holds no {name}")


def _zip_members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of a zip by name, after a check of everything that it holds."""
    members: dict[str, zipfile.ZipInfo] = {}
    total = 0
    for member in archive.infolist():
        name = _safe_name(path, _zip_name(member))
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            _refuse(path, name, "is a link or a device")
        if member.filename.endswith(("/", "\\")):
            continue
        if member.flag_bits & 1:
            _refuse(path, name, "is encrypted: make a zip without a password of it")
        if member.compress_type not in ZIP_METHODS:
            _refuse(path, name, _unknown_method(member.compress_type))
        if member.file_size > MAX_MEMBER_BYTES:
            _refuse(path, name, _too_large(member.file_size))
        if name in members:
            same = member.filename == members[name].filename
            _refuse(path, name, f"is there twice{'' if same else ', in two spellings'}")
        members[name] = member
        total += member.file_size
    limit = MAX_RATIO * path.stat().st_size + RATIO_FREE_BYTES
    if total > limit:
        total -= sum(m.file_size for m in members.values() if _is_blank_image(archive, m))
    if total > limit:
        largest = max(members, key=lambda name: members[name].file_size)
        _refuse(
            path,
            largest,
            f"and others unpack to {format_bytes(total)}, far more than the zip: a bomb",
        )
    return {name: member for name, member in members.items() if not _is_macos_extra(name)}


def _zip_name(member: zipfile.ZipInfo) -> str:
    """The name of a member. Finder writes UTF-8 and does not set the flag that says so."""
    if not member.flag_bits & UTF8_NAME:
        with suppress(UnicodeError):
            return member.filename.encode("cp437").decode("utf-8")
    return member.filename


def _is_blank_image(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Whether a member that shrank much is an image of no more bytes than its pixels need."""
    if member.file_size <= MAX_RATIO * member.compress_size:
        return False
    from PIL import Image

    try:
        with archive.open(member) as file, Image.open(file) as image:
            pixels = image.width * image.height
    except Exception:  # whatever this is, it is no plain image
        return False
    return member.file_size <= MAX_PIXEL_BYTES * pixels + MAX_HEADER_BYTES


class _TarStream:
    """The bytes of a tar, forward only, as tarfile reads them.

    It limits what a header or a member may read at once, so no header can make tarfile loop or fill
    the memory.
    """

    def __init__(self, raw: IO[bytes], unpacked: IO[bytes]) -> None:
        self.raw, self.unpacked = raw, unpacked
        self._last_read = b""

    def read(self, count: int) -> bytes:
        if not 0 <= count <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {count} bytes")
        self._last_read = self.unpacked.read(count)
        return self._last_read

    def seek(self, position: int) -> None:
        if not 0 <= position - self.tell() <= MAX_MEMBER_BYTES:
            raise tarfile.ReadError("a header points to a place out of reach")
        self.unpacked.seek(position)

    def tell(self) -> int:
        return self.unpacked.tell()

    def bytes_read(self) -> int:
        """Bytes of the file that were read so far."""
        return self.raw.tell()

    def content(self, position: int, count: int) -> bytes:
        self.seek(position)
        content = self.unpacked.read(count)
        if len(content) < count:
            raise EOFError("it ends in the middle of a file")
        return content

    def check_end(self) -> None:
        """Make sure that the archive is complete.

        tarfile also takes a header that is cut off or damaged for the end; and gzip's checksum
        comes after the last byte.
        """
        if self._last_read != bytes(tarfile.BLOCKSIZE):
            raise EOFError("it ends without the mark of its end")
        while self.unpacked.read(MAX_HEADER_BYTES):
            if self.tell() > MAX_RATIO * self.bytes_read() + RATIO_FREE_BYTES:
                raise tarfile.ReadError("what follows its end is a bomb")


@contextmanager
def _open_tar_stream(path: Path) -> Iterator[_TarStream]:
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not compressed:
            yield _TarStream(raw, raw)
        else:
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield _TarStream(raw, cast(IO[bytes], unpacked))


def _safe_name(path: Path, name: str) -> str:
    """The normalised `name`; refused if it leads out of the archive."""
    try:
        name.encode()
    except UnicodeEncodeError:
        _refuse(
            path, name.encode(errors="backslashreplace").decode(), "has a name that is no UTF-8"
        )
    if ".." in re.split(r"[/\\]", name) or re.match(r"[/\\]|[A-Za-z]:", name):
        _refuse(path, name, "leads out of the archive")
    return normalize_path(name)


def _unknown_method(method: int) -> str:
    name = OTHER_ZIP_METHODS.get(method, f"method {method}")
    return (
        f"is compressed with {name}, and only {', '.join(ZIP_METHODS.values())} can be read: "
        f"unpack it and zip it again with another program, or use the folder"
    )


def _too_large(size: int) -> str:
    return f"has {format_bytes(size)}; at most {format_bytes(MAX_MEMBER_BYTES)} may be"


def _refuse(path: Path, name: str, reason: str) -> NoReturn:
    raise DatasetError(f"{path}: this archive is refused: {name} {reason}.")


def _is_macos_extra(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == "__MACOSX" or parts[-1].startswith("._") or parts[-1] == ".DS_Store"
