"""Zips as Finder, Windows and other programs write them: names, compressions, blank scans."""

import io
import struct
import zipfile
from pathlib import Path
from unicodedata import normalize

import pytest
from PIL import Image

from dmlbench.datasets.archives import reading
from dmlbench.datasets.archives.reading import open_zip, read_archive, read_member
from dmlbench.utils.errors import DatasetError

UTF8_FLAG = 0x800
NFC = "Äpfel/café 漢字.png"
NFD = normalize("NFD", NFC)


def write_raw_zip(path: Path, names: list[bytes], flags: int = 0, method: int = 0) -> Path:
    """A zip of small files whose names are these bytes, as another program would write them."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(f"{number:0{len(name)}}", f"content {number}")
    content = bytearray(path.read_bytes())
    for mark, at_flags, at_name in ((b"PK\3\4", 6, 30), (b"PK\1\2", 8, 46)):
        start = 0
        for name in names:
            start = content.index(mark, start)
            struct.pack_into("<HH", content, start + at_flags, flags, method)
            content[start + at_name : start + at_name + len(name)] = name
            start += at_name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("raw", "flags", "name"),
    [
        (NFD.encode(), 0, NFC),  # Finder
        (NFC.encode(), UTF8_FLAG, NFC),
        (NFD.encode(), UTF8_FLAG, NFC),
        ("Äpfel/é.png".encode("cp437"), 0, "Äpfel/é.png"),  # an old program of DOS or Windows
        (b"apple\\red\\1.png", 0, "apple/red/1.png"),
        (b".\\1.png", 0, "1.png"),
        (b"./apple//1.png", 0, "apple/1.png"),
    ],
)
def test_the_names_in_a_zip_have_one_form_whatever_program_wrote_it(
    tmp_path: Path, raw: bytes, flags: int, name: str
):
    path = write_raw_zip(tmp_path / "a.zip", [raw], flags)
    assert list(read_archive(path)) == [(name, b"content 0")]
    assert read_member(path, name) == b"content 0"
    with open_zip(path) as (archive, members):
        assert archive.read(members[name]) == b"content 0"


def test_a_folder_of_windows_is_no_file(tmp_path: Path):
    path = write_raw_zip(tmp_path / "a.zip", [b"apple\\", b"apple\\1.png"])
    assert [name for name, _ in read_archive(path)] == ["apple/1.png"]


@pytest.mark.parametrize(
    "names",
    [(NFC.encode(), NFD.encode()), (b"a/1.png", b"a\\1.png"), (b"a/1.png", b"./a/1.png")],
)
def test_two_spellings_of_one_name_are_refused(tmp_path: Path, names: tuple[bytes, bytes]):
    path = write_raw_zip(tmp_path / "a.zip", [*names])
    with pytest.raises(DatasetError, match=r"1?\.png is there twice, in two spellings"):
        list(read_archive(path))


def test_names_that_differ_in_case_are_two_files(tmp_path: Path):
    path = write_raw_zip(tmp_path / "a.zip", [b"a/1.png", b"A/1.PNG"])
    assert dict(read_archive(path)) == {"a/1.png": b"content 0", "A/1.PNG": b"content 1"}


@pytest.mark.parametrize(
    ("method", "name"), [(9, "deflate64"), (93, "Zstandard"), (98, "PPMd"), (77, "method 77")]
)
def test_a_compression_that_cannot_be_read_is_named_once(tmp_path: Path, method: int, name: str):
    path = write_raw_zip(tmp_path / "a.zip", [b"1.png", b"2.png"], method=method)
    with pytest.raises(DatasetError) as caught, open_zip(path):
        pass
    assert str(caught.value) == (
        f"{path}: this archive is refused: 1.png is compressed with {name}, and only stored, "
        f"deflate, bzip2, LZMA can be read: unpack it and zip it again with another program, or "
        f"use the folder."
    )


def blank(kind: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (500, 400), "white").save(file, kind)
    return file.getvalue()


@pytest.fixture
def _low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RATIO_FREE_BYTES": 2**18, "MAX_HEADER_BYTES": 2**10}.items():
        monkeypatch.setattr(reading, name, value)


@pytest.mark.usefixtures("_low_limits")
@pytest.mark.parametrize(
    ("kind", "mode"), [("BMP", "RGB"), ("BMP", "L"), ("PPM", "L"), ("TIFF", "RGBA"), ("TGA", "RGB")]
)
def test_blank_scans_are_no_bomb(tmp_path: Path, kind: str, mode: str):
    scans = {f"{number:02}.img": blank(kind, mode) for number in range(12)}
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in scans.items():
            archive.writestr(name, content)
    size = (tmp_path / "a.zip").stat().st_size
    total = sum(map(len, scans.values()))
    assert total > reading.MAX_RATIO * size + reading.RATIO_FREE_BYTES
    assert dict(read_archive(tmp_path / "a.zip")) == scans


@pytest.mark.usefixtures("_low_limits")
@pytest.mark.parametrize("beginning", [blank("BMP")[:54], blank("PNG"), b"BM", b""])
def test_more_bytes_than_the_pixels_of_an_image_are_a_bomb(tmp_path: Path, beginning: bytes):
    size = 8 * 500 * 400 + 2**11
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scan.bmp", beginning + bytes(size - len(beginning)))
    with pytest.raises(DatasetError, match=r"scan\.bmp and others unpack to .*: a bomb"):
        list(read_archive(tmp_path / "a.zip"))
