import errno
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dmlbench.cli import main
from dmlbench.datasets import DatasetError, Row, decoding, journal
from dmlbench.datasets.archives import read_zip
from dmlbench.datasets.store import Store

PROGRAM = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from PIL import Image
from dmlbench.datasets import Row, journal, pack

class Plain:
    def __init__(self, value):
        self.value = value

    def __call__(self, side):
        return Image.new("L", (side, side), self.value)

def images(archives):
    with Path(sys.argv[1] + ".asked").open("a") as asked:
        asked.write("once ")
    for i in range(200):
        if i == 150 and sys.argv[2] == "hang":
            time.sleep(600)
        yield Row(f"{i:03}", f"class {i % 4}", (), "train" if i % 4 < 2 else "test"), Plain(i)

if __name__ == "__main__":
    journal.COMMIT_SECONDS = 0
    facts = {"version": 1, "channels": 1, "levels": [], "recall_at": [1]}
    pack.source.digest = lambda *_: "code"
    pack.load = lambda name, options: SimpleNamespace(FACTS=facts, SOURCES={}, images=images)
    pack.pack("made", 32, Path(sys.argv[1]), Path("none"), workers=1)
"""


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()[:32]


def plain(side: int, value: int = 0) -> Image.Image:
    return Image.new("L", (side, side), value)


def refuse(side: int) -> Image.Image:
    raise ValueError("damaged")


def some_images(**changed: Row) -> list[tuple[Row, Callable[[int], Image.Image]]]:
    rows = {
        "b1": Row("b1", "b", ("x", "top"), "test"),
        "a1": Row("a1", "a", ("x", "top"), "train"),
        "c1": Row("c1", "c", ("y", "top"), "train"),
        "b2": Row("b2", "b", ("x", "top"), "test"),
    } | changed
    return [(row, partial(plain, value=value)) for value, row in enumerate(rows.values())]


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_a_killed_packing_leaves_no_store_and_no_process_and_the_next_one_goes_on(tmp_path: Path):
    program, out = tmp_path / "program.py", tmp_path / "store"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(out)]
    limit = time.monotonic() + 40
    with subprocess.Popen([*command, "hang"]) as process:
        lines = out / "partial" / "journal"
        while not (lines.exists() and lines.read_bytes().count(b"\n") > 1):
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.02)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGKILL)
    with pytest.raises(DatasetError, match="no complete store"):
        Store(out)
    assert workers
    while any(is_running(pid) for pid in workers):
        assert time.monotonic() < limit
        time.sleep(0.02)
    run = subprocess.run(
        [*command, "finish"], check=True, timeout=40, capture_output=True, text=True
    )
    assert re.search(r"goes on after \d+ images", run.stdout)
    assert [image[0, 0, 0] for image in Store(out)] == list(range(200))
    assert not (out / "partial").exists()


def test_ctrl_c_is_one_line_and_what_is_done_is_kept(tmp_path: Path):
    program, out = tmp_path / "program.py", tmp_path / "store"
    start, _, _ = PROGRAM.rpartition("    pack.pack(")
    program.write_text(
        f"{start}    from dmlbench import cli\n"
        "    from dmlbench.datasets import decoding\n"
        "    decoding.usable_cores = lambda: 1\n"
        "    cli.main(['data', 'pack', 'made', '32', '{}', 'pixels', sys.argv[1]])\n"
    )
    command = [sys.executable, str(program), str(out), "hang"]
    limit = time.monotonic() + 40
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        lines = out / "partial" / "journal"
        while not (lines.exists() and lines.read_bytes().count(b"\n") > 1):
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=40)
    assert said == "dmlbench: stopped: the same command goes on from here\n"
    assert process.returncode == 1
    assert lines.read_bytes().count(b"\n") > 1


def test_two_that_begin_at_once_pack_once(tmp_path: Path):
    program, out = tmp_path / "program.py", tmp_path / "store"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(out), "finish"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert Path(f"{out}.asked").read_text() == "once "
    assert sum("it is there already" in text for text in said) == 1
    assert len(Store(out)) == 200


def test_the_index_and_the_protocol_say_what_the_rows_said(
    pack_images: Callable[..., Store], tmp_path: Path
):
    store = pack_images(some_images(), 4, tmp_path / "store")
    index = pq.read_table(store.path / "index.parquet").to_pydict()
    arrived = {"b1": 0, "a1": 1, "c1": 2, "b2": 3}
    assert index == {
        "id": [0, 1, 2, 3],
        "path": ["a1", "b1", "b2", "c1"],
        "label": [0, 1, 1, 2],
        "class_name": ["a", "b", "b", "c"],
        "level_1": ["x", "x", "x", "y"],
        "level_2": ["top"] * 4,
        "split": ["train", "test", "test", "train"],
        "height": [4] * 4,
        "width": [4] * 4,
        "offset": [16 * arrived[path] for path in ("a1", "b1", "b2", "c1")],
        "digest": [digest(16 * bytes([arrived[path]])) for path in ("a1", "b1", "b2", "c1")],
    }
    assert [image[0, 0, 0] for image in store] == [1, 0, 3, 2]
    protocol = pq.read_table(store.path / "protocols.parquet").to_pydict()
    assert protocol == {
        "protocol": ["zero_shot"] * 2,
        "id": [1, 2],
        "role": ["both"] * 2,
        "repetition": [0, 0],
    }
    manifest = store.manifest
    assert (manifest["type"], manifest["side"], manifest["channels"]) == ("made", 4, 1)
    assert (manifest["images"], manifest["splits"]) == (4, {"test": [1, 2], "train": [2, 2]})
    assert manifest["facts"]["recall_at"] == [1]
    assert not (store.path / "pairs.parquet").exists()


def test_the_content_hash_follows_pixels_and_index_and_not_the_order_of_arrival(
    pack_images: Callable[..., Store], tmp_path: Path
):
    numbers = itertools.count()

    def content(images: list, **options: object) -> str:
        return pack_images(images, 4, tmp_path / f"{next(numbers)}", **options).manifest["content"]

    first = content(some_images())
    assert content(some_images()[::-1]) == first
    assert content(some_images(c1=Row("c1", "c", ("x", "top"), "train"))) != first
    assert content([*some_images()[:3], (some_images()[3][0], partial(plain, value=9))]) != first
    assert content(some_images(), hooks={"pairs": lambda *_: [(0, 1, True, 0)]}) != first
    assert content(some_images(b2=Row("b2", "b", ("x", "top"), "test", "query"))) != first


def test_a_data_set_s_own_protocols_and_pairs_are_written(
    pack_images: Callable[..., Store], tmp_path: Path
):
    seen = []

    def protocols(rows: Sequence[Row], archives: object):
        seen.extend([list(rows), rows[1], rows[-1], rows[1:3], len(rows)])
        yield "small", 1, "query", 0
        yield "small", 2, "gallery", 1

    def pairs(rows: Sequence[Row], archives: object):
        yield 0, 3, False, 0
        yield 1, 2, True, 9

    images = some_images(b1=Row("b1", "b", ("x", "top"), "test", "query"))
    rows = sorted(row for row, _ in images)
    hooks = {"protocols": protocols, "pairs": pairs}
    store = pack_images(images, 4, tmp_path / "store", hooks=hooks)
    assert seen == [rows, rows[1], rows[-1], rows[1:3], 4]
    assert pq.read_table(store.path / "protocols.parquet").to_pylist() == [
        {"protocol": "small", "id": 1, "role": "query", "repetition": 0},
        {"protocol": "small", "id": 2, "role": "gallery", "repetition": 1},
    ]
    assert pq.read_table(store.path / "pairs.parquet").to_pylist() == [
        {"first": 0, "second": 3, "same": False, "fold": 0},
        {"first": 1, "second": 2, "same": True, "fold": 9},
    ]
    wrong = {"pairs": lambda *_: [(0, 4, True, 0)]}
    with pytest.raises(DatasetError, match=r"names images .*4.*, of 0\.\.3"):
        pack_images(some_images(), 4, tmp_path / "wrong", hooks=wrong)


def test_a_packing_that_fails_leaves_the_store_that_was_there(
    pack_images: Callable[..., Store], tmp_path: Path
):
    before = pack_images(some_images(), 4, tmp_path / "store").manifest
    with pytest.raises(DatasetError, match="b2: cannot decode"):
        pack_images([*some_images()[:3], (some_images()[3][0], refuse)], 2, tmp_path / "store")
    after = Store(tmp_path / "store")
    assert after.manifest == before
    assert len(after) == 4
    assert not (tmp_path / "store" / "partial").exists()


def test_a_whole_store_is_left_alone_and_a_damaged_one_made_anew(
    pack_images: Callable[..., Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    first = pack_images(some_images(), 4, tmp_path / "store")
    manifest = first.path / "manifest.json"
    stamp = manifest.stat().st_mtime_ns
    pack_images([(row, refuse) for row, _ in some_images()], 4, first.path)
    assert manifest.stat().st_mtime_ns == stamp
    assert "it is there already" in capsys.readouterr().out
    with (first.path / "index.parquet").open("ab") as file:
        file.write(b"x")
    assert pack_images(some_images(), 4, first.path).manifest == first.manifest


def test_in_a_folder_that_cannot_be_written_a_whole_store_is_found_and_else_it_is_said(
    pack_images: Callable[..., Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = pack_images(some_images(), 4, tmp_path / "store")
    (store.path / ".lock").unlink()
    (store.path / ".lock").mkdir()  # cannot be opened, by root neither
    pack_images(some_images(), 4, store.path)
    assert "it is there already" in capsys.readouterr().out
    with pytest.raises(DatasetError, match=r"store cannot be written: .*DMLBENCH_DATA"):
        pack_images(some_images(), 2, store.path)


def test_an_open_store_keeps_what_it_holds_when_the_folder_is_packed_anew(
    pack_images: Callable[..., Store], tmp_path: Path
):
    opened = pack_images(some_images(), 4, tmp_path / "store")
    renamed = [(row._replace(path=f"new {row.path}"), image) for row, image in some_images()]
    pack_images(renamed, 2, opened.path)
    assert [image[0, 3, 3] for image in opened] == [1, 0, 3, 2]
    assert opened.index["path"].tolist() == ["a1", "b1", "b2", "c1"]


class Killed(BaseException):
    pass


def many_images(stop: int = 200, asked: list[str] | None = None):
    """200 images of several sizes, not in the order of their paths; killed at `stop`."""
    for number in range(200):
        if number == stop:
            raise Killed
        path = f"{7 * number % 200:03}"
        split = "train" if number % 4 < 2 else "test"
        row = Row(path, f"class {number % 4}", ("é" * (number % 2),), split)
        yield row, partial(odd, number=number, asked=asked)


def odd(side: int, number: int, asked: list[str] | None) -> Image.Image:
    if asked is not None:
        asked.append(number)
    return Image.new("L", (4 + number % 5, 4), number)


class Stream(list):
    """Images that the fixture may ask for their first."""

    def __iter__(self):
        return many_images(*self.arguments)


def stream(*arguments: object) -> Stream:
    made = Stream([next(many_images())])
    made.arguments = arguments
    return made


def cut_journal(folder: Path) -> None:
    os.truncate(folder / "journal", (folder / "journal").stat().st_size - 5)


def garble_journal(folder: Path) -> None:
    content = (folder / "journal").read_bytes()
    at = content.rindex(b"class 2")
    (folder / "journal").write_bytes(content[:at] + b"class 3" + content[at + 7 :])


def cut_images(folder: Path) -> None:
    os.truncate(folder / "images.bin", (folder / "images.bin").stat().st_size - 5)


def add_to_images(folder: Path) -> None:
    with (folder / "images.bin").open("ab") as file:
        file.write(b"x" * 999)


def empty_journal(folder: Path) -> None:
    (folder / "journal").write_bytes(b"")


def no_images(folder: Path) -> None:
    (folder / "images.bin").unlink()


@pytest.mark.parametrize("form", ["pixels", "jpeg"])
@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda folder: None, 96),
        (cut_journal, 64),
        (garble_journal, 64),
        (cut_images, 64),
        (add_to_images, 96),
        (empty_journal, 0),
        (no_images, 0),
    ],
)
def test_what_a_killed_packing_left_is_used_as_far_as_it_is_whole(
    pack_images: Callable[..., Store],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    kept: int,
    form: str,
):
    monkeypatch.setattr(journal, "COMMIT_SECONDS", 0)
    monkeypatch.setattr(decoding, "usable_cores", lambda: 1)  # chunks come back one by one
    whole = pack_images(stream(), 4, tmp_path / "whole", form=form)
    with pytest.raises(Killed):
        pack_images(stream(190), 4, tmp_path / "store", form=form)
    left = tmp_path / "store" / "partial"
    damage(left)
    asked: list[int] = []
    store = pack_images(stream(200, asked), 4, tmp_path / "store", form=form)
    assert sorted(asked) == list(range(kept, 200))
    for name in ("images.bin", "index.parquet", "protocols.parquet"):
        assert (store.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert store.manifest == whole.manifest
    assert not left.exists()


def test_what_another_packing_left_is_dropped(
    pack_images: Callable[..., Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(journal, "COMMIT_SECONDS", 0)
    with pytest.raises(Killed):
        pack_images(stream(190), 4, tmp_path / "store")
    asked: list[int] = []
    pack_images(stream(200, asked), 2, tmp_path / "store")
    assert sorted(asked) == list(range(200))


def test_an_image_that_comes_twice_is_found_after_a_kill_as_well(
    pack_images: Callable[..., Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(journal, "COMMIT_SECONDS", 0)
    with pytest.raises(Killed):
        pack_images(stream(190), 4, tmp_path / "store")
    assert (tmp_path / "store/partial/journal").stat().st_size > 1000
    twice = [*many_images(), next(many_images())]
    with pytest.raises(DatasetError, match="found twice: 000"):
        pack_images(twice, 4, tmp_path / "store")


def test_a_disk_that_is_too_small_is_refused_before_it_begins(
    pack_images: Callable[..., Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    free = SimpleNamespace(free=110e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    inat = {"splits": {"train": [5690, 325846], "test": [2452, 136093]}, "channels": 3}
    with pytest.raises(DatasetError) as caught:
        pack_images(some_images(), 256, tmp_path / "store", **inat)
    text = str(caught.value)
    assert "needs about 121 GB, and 110 GB are free" in text
    assert "`store: jpeg`" in text
    assert "DMLBENCH_DATA" in text
    capsys.readouterr()
    with pytest.raises(DatasetError, match="expected 5690"):  # it begins
        pack_images(some_images(), 256, tmp_path / "store", form="jpeg", **inat)
    assert "461,939 images will take about 30 GB; 110 GB are free" in capsys.readouterr().out
    free.free = 1e9
    with pytest.raises(DatasetError, match=r"Make room or keep data on another disk"):
        pack_images(some_images(), 256, tmp_path / "store", form="jpeg", **inat)


def test_a_disk_that_fills_up_is_said_and_what_is_done_is_kept(
    pack_images: Callable[..., Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(journal, "COMMIT_SECONDS", 0)
    monkeypatch.setattr(decoding, "usable_cores", lambda: 1)
    add, calls = journal.Journal.add, []

    def full(self: journal.Journal, decoded: object) -> None:
        calls.append(decoded)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(self, decoded)

    splits = {"train": [2, 100], "test": [2, 100]}
    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "add", full)
        with pytest.raises(DatasetError, match=r"no space is left.*`store: jpeg`"):
            pack_images(stream(), 4, tmp_path / "store", splits=splits)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
        with pytest.raises(DatasetError, match="0 GB are free"):
            pack_images(stream(), 4, tmp_path / "store", splits=splits)
    asked: list[int] = []
    pack_images(stream(200, asked), 4, tmp_path / "store", splits=splits)
    assert sorted(asked) == list(range(64, 200))


def unreadable(side: int) -> Image.Image:
    raise OSError(errno.EIO, "Input/output error", "a.png")


@pytest.mark.parametrize("where", ["image", "archive"])
def test_what_is_done_is_kept_when_the_disk_cannot_be_read(
    pack_images: Callable[..., Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    monkeypatch.setattr(journal, "COMMIT_SECONDS", 0)
    monkeypatch.setattr(decoding, "usable_cores", lambda: 1)
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("a.png", b"")

    class Failing(list):
        def __iter__(self):
            for number, (row, image) in enumerate(many_images()):
                if number == 190 and where == "archive":
                    next(read_zip(archive))
                yield row, unreadable if number == 190 else image

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "read", lambda *_: unreadable(0))
        with pytest.raises(DatasetError, match=r"Input/output error.* What is done is kept"):
            pack_images(Failing([next(many_images())]), 4, tmp_path / "store")
    asked: list[int] = []
    pack_images(stream(200, asked), 4, tmp_path / "store")
    assert sorted(asked) == list(range(asked[0], 200))
    assert asked[0] > 0


def killed(side: int) -> Image.Image:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def out_of_memory(side: int) -> Image.Image:
    raise MemoryError


@pytest.mark.parametrize("source", [killed, out_of_memory])
def test_a_process_without_memory_is_said_and_what_is_done_is_kept(
    pack_images: Callable[..., Store],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: Callable[[int], Image.Image],
):
    monkeypatch.setattr(decoding, "ProcessPoolExecutor", ProcessPoolExecutor)
    monkeypatch.setattr(decoding, "usable_cores", lambda: 1)
    images = [*many_images()]
    with pytest.raises(DatasetError, match=r"want of it.*fewer cores.* What is done is kept"):
        pack_images([*images[:190], (images[190][0], source)], 4, tmp_path / "store")
    assert (tmp_path / "store/partial/journal").is_file()


def test_images_that_are_known_to_be_damaged_are_left_out_and_no_others(
    pack_images: Callable[..., Store], tmp_path: Path
):
    images = [*some_images()[:3], (some_images()[3][0], refuse)]
    store = pack_images(images, 4, tmp_path / "store", hooks={"KNOWN_CORRUPT": ("b2",)})
    assert store.index["path"].tolist() == ["a1", "b1", "c1"]
    with pytest.raises(DatasetError, match="b2: cannot decode"):
        pack_images(images, 4, tmp_path / "other", hooks={"KNOWN_CORRUPT": ("b1",)})


def test_how_many_strips_were_cut_is_noted(
    pack_images: Callable[..., Store], png: Callable[[np.ndarray], bytes], tmp_path: Path
):
    shapes = {"strip": (1, 99), "square": (9, 9), "tall": (50, 2)}
    images = [
        (Row(name, name, (), "train"), png(np.zeros(shape, np.uint8)))
        for name, shape in shapes.items()
    ]
    store = pack_images(images, 4, tmp_path / "store")
    assert store.manifest["cut"] == 2
    assert store.sizes.tolist() == [[4, 4], [4, 16], [16, 4]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["csv", "32", "{}"], "'csv' has options, .*--options"),
        (["csv", "32", "{}", "--options", '{"fil": "a.csv"}'], "options of 'csv': .*'fil'"),
        (["csv", "32", "{}", "--options", '["a.csv"]'], "options of 'csv': .*mapping"),
        (["glyphs", "0", "{}"], "short side is 0"),
        (["glyphs", "32", "{}", "--options", '{"file": "a.csv"}'], "'glyphs' has no options"),
        (["glyphs", "32", '["md5:0"]'], "checksums: .* is not"),
        (["glyphs", "32", "[]"], "checksums: .* is not"),
    ],
)
def test_a_mistake_in_the_command_is_one_message(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DMLBENCH_DATA", str(tmp_path))
    name, side, checksums, *options = arguments
    store = str(tmp_path / "store")
    with pytest.raises(SystemExit) as end:
        main(["data", "pack", name, side, checksums, "pixels", store, *options])
    assert re.match(f"dmlbench: .*{message}", str(end.value.code))


def test_paths_and_classes_are_unicode(pack_images: Callable[..., Store], tmp_path: Path):
    names = ["Ωmega/ä 1.png", "日本/猫\n.png", "z", "😀.jpg", "\uffee"]
    images = [(Row(name, name, (), "train"), plain) for name in names]
    store = pack_images(images, 4, tmp_path / "store")
    assert store.index["path"].tolist() == sorted(names)
    torn = [(Row("b\udcff", "b", (), "train"), plain)]
    with pytest.raises(DatasetError, match=r"not UTF-8.*b\\udcff"):
        pack_images(torn, 4, tmp_path / "torn")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"b2": Row("b1", "b", ("x", "top"), "test")}, "found twice: b1"),
        ({"b2": Row("b2", "b", ("x", "top"), "train")}, "class b is both in .*test.* and .*train"),
        ({"b2": Row("b2", "b", ("y", "top"), "test")}, "class b is both in .*x.* and .*y"),
    ],
)
def test_rows_that_contradict_one_another_are_refused(
    pack_images: Callable[..., Store], tmp_path: Path, changed: dict[str, Row], message: str
):
    with pytest.raises(DatasetError, match=message):
        pack_images(some_images(**changed), 4, tmp_path / "store")


def test_another_split_than_the_declared_one_is_refused(
    pack_images: Callable[..., Store], tmp_path: Path
):
    splits = {"train": [2, 2], "test": [1, 3]}
    with pytest.raises(DatasetError, match="test: found 1 classes and 2 images, expected 1 and 3"):
        pack_images(some_images(), 4, tmp_path / "store", splits=splits)
    with pytest.raises(DatasetError, match="no images"):
        pack_images([], 4, tmp_path / "store")
