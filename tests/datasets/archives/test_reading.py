import contextlib
import gzip
import io
import random
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlbench.datasets.archives import reading
from dmlbench.datasets.archives.reading import read_archive, read_member
from dmlbench.utils.errors import DatasetError

CONTENT = random.Random(0).randbytes(5000)
FILES = {"b/1": b"one", "a/three": CONTENT, "b/größe/漢字.jpg": b"", "list.txt": b"x y\n" * 500}
MACOS_EXTRAS = ("__MACOSX/b/._1", "b/._1", "b/.DS_Store", "._top")
ZIPS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}
TARS = {"tar": "w:", "tar.gz": "w:gz"}
FORMATS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", **properties: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in properties.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(content))


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w:gz", format: int = 0) -> Path:
    with tarfile.open(path, mode, format=format or tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            add(archive, name, content)
    return path


def write_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tree(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("method", ZIPS)
def test_a_zip_is_read_in_the_order_of_names_without_the_extras_of_macos(
    tmp_path: Path, method: str
):
    files = {"./c//4": b"4", **FILES, **dict.fromkeys(MACOS_EXTRAS, b"resource fork"), "b/": b""}
    path = write_zip(tmp_path / "a.zip", files, ZIPS[method])
    assert list(read_archive(path)) == sorted({**FILES, "c/4": b"4"}.items())


@pytest.mark.parametrize("kind", TARS)
@pytest.mark.parametrize("format", FORMATS)
def test_a_tar_is_read_in_its_own_order_without_the_extras_of_macos(
    tmp_path: Path, kind: str, format: str
):
    path, deep = tmp_path / f"a.{kind}", "d" * 90 + "/" + "e" * 90 + "/" + "f" * 90
    with tarfile.open(path, TARS[kind], format=FORMATS[format]) as archive:
        add(archive, "./", type=tarfile.DIRTYPE)
        for name in MACOS_EXTRAS:
            add(archive, name, b"resource fork")
        for name, content in {**FILES, deep: b"deep"}.items():
            add(archive, f"./{name}", content)
        add(archive, "b", type=tarfile.DIRTYPE)
    assert list(read_archive(path)) == [*FILES.items(), (deep, b"deep")]


def test_one_file_of_an_archive_is_read(tmp_path: Path):
    for path in (write_zip(tmp_path / "a.zip", FILES), write_tar(tmp_path / "a.tgz", FILES)):
        assert read_member(path, "list.txt") == FILES["list.txt"]
        with pytest.raises(DatasetError, match=rf"{path}: it holds no list\.csv"):
            read_member(path, "list.csv")


OUTSIDE = {
    "a path upwards": "../../evil",
    "a path upwards inside": "b/../../evil",
    "an absolute path": "/tmp/evil",
    "a path upwards of Windows": "b\\..\\..\\evil",
    "an absolute path of Windows": "\\evil",
    "a drive of Windows": "C:/evil",
    "a path upwards as macOS's": "__MACOSX/../../._evil",
}
KINDS = {
    "a symlink": (tarfile.SYMTYPE, stat.S_IFLNK),
    "a hard link": (tarfile.LNKTYPE, None),
    "a fifo": (tarfile.FIFOTYPE, stat.S_IFIFO),
    "a character device": (tarfile.CHRTYPE, stat.S_IFCHR),
    "a block device": (tarfile.BLKTYPE, stat.S_IFBLK),
    "a socket": (None, stat.S_IFSOCK),
    "a sparse file": (tarfile.GNUTYPE_SPARSE, None),
    "an unknown kind": (b"Z", None),
}


def hostile_tars() -> dict[str, Callable[[tarfile.TarFile], None]]:
    tars: dict[str, Callable[[tarfile.TarFile], None]] = {}
    for case, name in OUTSIDE.items():
        tars[case] = lambda archive, name=name: add(archive, name, b"evil")
    for case, (kind, _) in KINDS.items():
        if kind is not None:
            tars[case] = lambda archive, kind=kind: add(
                archive, "evil", type=kind, linkname="/etc/passwd"
            )
    tars["a member twice"] = lambda archive: [add(archive, "evil", b"1") for _ in range(2)]  # type: ignore[func-returns-value]
    tars["a member twice, spelt in two ways"] = lambda archive: [  # type: ignore[func-returns-value]
        add(archive, name, b"1") for name in ("evil", ".//evil")
    ]
    tars["a name that is not UTF-8"] = lambda archive: add(archive, "evil\udcff", b"1")
    return tars


@pytest.mark.parametrize("kind", TARS)
@pytest.mark.parametrize("case", hostile_tars())
def test_a_hostile_tar_is_refused_by_name(tmp_path: Path, kind: str, case: str):
    path = tmp_path / f"a.{kind}"
    with tarfile.open(path, TARS[kind], format=tarfile.GNU_FORMAT) as archive:
        add(archive, "good", CONTENT)
        hostile_tars()[case](archive)
    before = tree(tmp_path)
    with pytest.raises(DatasetError, match=rf"{path}: this archive is refused: .*evil") as error:
        list(read_archive(path))
    assert "\n" not in str(error.value)
    assert tree(tmp_path) == before


def hostile_zips() -> dict[str, list[tuple[zipfile.ZipInfo | str, bytes]]]:
    zips: dict[str, list[tuple[zipfile.ZipInfo | str, bytes]]] = {
        case: [(name, b"evil")] for case, name in OUTSIDE.items()
    }
    for case, (_, mode) in KINDS.items():
        if mode is not None:
            member = zipfile.ZipInfo("evil")
            member.external_attr = (mode | 0o644) << 16
            zips[case] = [(member, b"/etc/passwd")]
    zips["a member twice"] = [("evil", b"1"), ("evil", b"2")]
    zips["a member twice, spelt in two ways"] = [("evil", b"1"), ("./evil", b"2")]
    return zips


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", hostile_zips())
def test_a_hostile_zip_is_refused_by_name_before_anything_is_read(tmp_path: Path, case: str):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a good one", CONTENT)
        for member, content in hostile_zips()[case]:
            archive.writestr(member, content)
    before = tree(tmp_path)
    for read in (lambda: next(read_archive(path)), lambda: read_member(path, "a good one")):
        with pytest.raises(DatasetError, match=rf"{path}: this archive is refused: .*evil"):
            read()
    assert tree(tmp_path) == before


def test_an_encrypted_zip_is_refused_by_name(tmp_path: Path):
    path = write_zip(tmp_path / "a.zip", {"secret": CONTENT})
    content = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # of the file, and of the directory
        content[content.rindex(mark) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="refused: secret is encrypted"):
        list(read_archive(path))


class TestBombs:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {"MAX_MEMBER_BYTES": 2**20, "RATIO_FREE_BYTES": 2**18}.items():
            monkeypatch.setattr(reading, name, value)

    def test_a_member_beyond_the_limit_is_refused_without_being_read(self, tmp_path: Path):
        zeros = {"zeros": bytes(2**20 + 1)}
        for path in (write_zip(tmp_path / "a.zip", zeros), write_tar(tmp_path / "a.tgz", zeros)):
            with pytest.raises(DatasetError, match=r"refused: zeros has 1.05 MB; at most 1.05 MB"):
                list(read_archive(path))

    def test_members_that_together_unpack_to_far_more_than_the_archive_are_refused(
        self, tmp_path: Path
    ):
        zeros = {f"{i}": bytes(2**19) for i in range(20)}
        for path in (write_zip(tmp_path / "a.zip", zeros), write_tar(tmp_path / "a.tgz", zeros)):
            with pytest.raises(DatasetError, match="a bomb"):
                list(read_archive(path))

    def test_members_that_shrink_like_lists_of_paths_are_read(self, tmp_path: Path):
        lines = "".join(f"img/WOMEN/Dresses/id_{i:08}/02_1_front.jpg {i}\n" for i in range(9000))
        lists = {f"{i}.txt": lines.encode() for i in range(10)}
        assert dict(read_archive(write_zip(tmp_path / "a.zip", lists))) == lists
        assert dict(read_archive(write_tar(tmp_path / "a.tgz", lists))) == lists

    def test_overlapping_members_of_a_zip_are_refused(self, tmp_path: Path):
        """A thousand entries of the directory that all point to the same bytes."""
        path = write_zip(tmp_path / "a.zip", {"00000": bytes(2**19)})
        content = path.read_bytes()
        start = content.index(b"PK\1\2")
        entry, end = content[start : content.index(b"PK\5\6")], content[content.index(b"PK\5\6") :]
        entries = [entry.replace(b"00000", b"%05d" % i) for i in range(1000)]
        count = (1000).to_bytes(2, "little")
        end = end[:8] + 2 * count + (1000 * len(entry)).to_bytes(4, "little") + end[16:]
        path.write_bytes(content[:start] + b"".join(entries) + end)
        with pytest.raises(DatasetError, match=r"a\.zip"):
            list(read_archive(path))

    @pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
    def test_a_header_that_announces_a_huge_name_is_refused(self, tmp_path: Path, kind: bytes):
        path = tmp_path / "a.tgz"
        member = tarfile.TarInfo("././@LongLink")
        member.type, member.size = kind, 2**28
        path.write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(2**20)))
        with pytest.raises(DatasetError, match=r"a\.tgz: cannot read it: a header of 268435456"):
            list(read_archive(path))

    def test_a_bomb_after_the_end_is_refused(self, tmp_path: Path):
        path = write_tar(tmp_path / "a.tgz", {"a": b"a"})
        path.write_bytes(path.read_bytes() + gzip.compress(bytes(2**24)))
        with pytest.raises(DatasetError, match="what follows its end is a bomb"):
            list(read_archive(path))

    @pytest.mark.parametrize(
        "kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE]
    )
    @pytest.mark.parametrize("size", [-512, -1024, -(2**40), 2**60])
    def test_a_header_with_an_impossible_size_is_refused_before_anything_is_read(
        self, tmp_path: Path, kind: bytes, size: int
    ):
        path, member = tmp_path / "a.tar", tarfile.TarInfo("circle")
        member.type, member.size = kind, size
        path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + CONTENT + bytes(10240))
        with pytest.raises(DatasetError, match=r"a\.tar"):
            next(read_archive(path))


@pytest.mark.parametrize("kind", TARS)
def test_a_truncated_tar_is_never_taken_for_a_complete_one(tmp_path: Path, kind: str):
    complete = write_tar(
        tmp_path / "complete", {"a": CONTENT, "b": b"b" * 700, "c": CONTENT}, TARS[kind]
    )
    content, path = complete.read_bytes(), tmp_path / "a.tar"
    needed = 512 * (3 + 10 + 2 + 10 + 1) if kind == "tar" else len(content)
    for length in [*range(0, needed, 97), *range(0, needed, 512), needed - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(DatasetError, match=r"a\.tar: cannot read it"):
            list(read_archive(path))
    path.write_bytes(content[:needed])
    assert len(list(read_archive(path))) == 3


def test_a_damaged_gzip_is_named_with_the_file_before_the_damage(tmp_path: Path):
    path = write_tar(tmp_path / "a.tgz", {"good": b"good", "damaged": CONTENT})
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # its checksum
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.tgz: cannot read it after damaged: CRC check"):
        list(read_archive(path))


NO_ARCHIVES = {
    b"": "cannot read it",
    b"no archive": r"cannot read it: .* \(only zip, tar and tar\.gz can be read\)",
    b"PK\3\4": "cannot read .*: File is not a zip file",
    b"<html>please log in</html>": "this is a page of HTML",
    b"7z\xbc\xaf\x27\x1c\0\4": "this is a 7z archive; zip, tar and tar.gz can be read",
    b"BZh91AY": "this is compressed with bzip2",
}


@pytest.mark.parametrize("content", NO_ARCHIVES)
def test_a_file_that_is_no_archive_is_named(tmp_path: Path, content: bytes):
    path = tmp_path / "a.tgz"
    path.write_bytes(content)
    for read in (lambda: list(read_archive(path)), lambda: read_member(path, "a.txt")):
        with pytest.raises(DatasetError, match=rf"a\.tgz: {NO_ARCHIVES[content]}"):
            read()
    with pytest.raises(DatasetError, match=r"none\.tgz: cannot read it: No such file"):
        list(read_archive(tmp_path / "none.tgz"))


def test_the_content_of_an_archive_and_not_its_name_says_what_it_is(tmp_path: Path):
    for path in (write_zip(tmp_path / "a.tgz", FILES), write_tar(tmp_path / "a.zip", FILES)):
        assert dict(read_archive(path)) == FILES


@pytest.mark.parametrize("method", ZIPS)
def test_a_damaged_member_of_a_zip_is_named(tmp_path: Path, method: str):
    path = write_zip(tmp_path / "a.zip", {"good": CONTENT, "damaged": CONTENT}, ZIPS[method])
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("damaged").header_offset + 30 + len("damaged")
    content = bytearray(path.read_bytes())
    content[start : start + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="cannot read damaged"):
        list(read_archive(path))


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["zip", "tar", "pax", "tgz"]),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    cut=st.floats(0.2, 1),
)
def test_any_damage_raises_only_a_dataset_error(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    damage: list[tuple[float, int]],
    cut: float,
):
    path = tmp_path_factory.mktemp("damaged") / "a"
    if kind == "zip":
        write_zip(path, FILES)
    else:
        format = tarfile.GNU_FORMAT if kind == "tar" else tarfile.PAX_FORMAT
        write_tar(path, FILES, "w:gz" if kind == "tgz" else "w:", format)
    content = bytearray(path.read_bytes())
    for place, value in damage:
        content[int(place * len(content))] = value
    path.write_bytes(content[: int(cut * len(content))])
    with contextlib.suppress(DatasetError):  # anything else is a failure
        files = dict(read_archive(path))
        assert all(isinstance(value, bytes) for value in files.values())


def test_memory_does_not_grow_with_the_archive(tmp_path: Path):
    """40 MB in 15,000 members, in a new process."""
    path, block = tmp_path / "a.tar", random.Random(0).randbytes(2**20)
    with tarfile.open(path, "w:") as archive:
        for i in range(30):
            add(archive, f"large {i}", block)
        for i in range(15_000):
            add(archive, f"small {i}")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from dmlbench.datasets.archives.reading import read_archive\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); n = sum(len(c) for _, c in read_archive(Path(sys.argv[1])))\n"
        "print(n, peak() - before)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=True)
    count, grown = map(int, run.stdout.split())
    assert count == 30 * 2**20
    assert grown * (1 if sys.platform == "darwin" else 1024) < 5 * 2**20
