import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dmlbench.datasets import DatasetError, Row
from dmlbench.datasets.store import Store

PROGRAM = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from PIL import Image
from dmlbench.datasets import Row, pack

class Plain:
    def __init__(self, value):
        self.value = value

    def __call__(self, side):
        return Image.new("L", (side, side), self.value)

def images(archives):
    for i in range(200):
        if i == 150 and sys.argv[2] == "hang":
            time.sleep(600)
        yield Row(f"{i}", f"class {i % 4}", (), "train" if i % 4 < 2 else "test"), Plain(i)

if __name__ == "__main__":
    facts = {"version": 1, "channels": 1, "levels": [], "recall_at": [1]}
    pack.load = lambda name, options: SimpleNamespace(FACTS=facts, SOURCES={}, images=images)
    pack.pack("made", 32, Path(sys.argv[1]), Path("none"), workers=1)
"""


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
def test_a_killed_packing_leaves_no_store_and_no_process_and_the_next_one_finishes(tmp_path: Path):
    program, out = tmp_path / "program.py", tmp_path / "store"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(out)]
    limit = time.monotonic() + 40
    with subprocess.Popen([*command, "hang"]) as process:
        pixels = out / "partial" / "images.bin"
        while not (pixels.exists() and pixels.stat().st_size):
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
    subprocess.run([*command, "finish"], check=True, timeout=40)
    assert Store(out).read(np.arange(200))[0][:, 0, 0, 0].tolist() == list(range(200))
    assert not (out / "partial").exists()


def test_the_index_and_the_protocol_say_what_the_rows_said(
    pack_images: Callable[..., Store], tmp_path: Path
):
    store = pack_images(some_images(), 4, tmp_path / "store")
    index = pq.read_table(store.path / "index.parquet").to_pydict()
    assert index == {
        "id": [0, 1, 2, 3],
        "path": ["b1", "a1", "c1", "b2"],
        "label": [1, 0, 2, 1],
        "class_name": ["b", "a", "c", "b"],
        "level_1": ["x", "x", "y", "x"],
        "level_2": ["top"] * 4,
        "split": ["test", "train", "train", "test"],
        "height": [4] * 4,
        "width": [4] * 4,
    }
    protocol = pq.read_table(store.path / "protocols.parquet").to_pydict()
    assert protocol == {
        "protocol": ["zero_shot"] * 2,
        "id": [0, 3],
        "role": ["both"] * 2,
        "repetition": [0, 0],
    }
    manifest = store.manifest
    assert (manifest["type"], manifest["side"], manifest["channels"]) == ("made", 4, 1)
    assert (manifest["images"], manifest["splits"]) == (4, {"test": [1, 2], "train": [2, 2]})
    assert manifest["facts"]["recall_at"] == [1]


def test_the_content_hash_follows_pixels_and_index(
    pack_images: Callable[..., Store], tmp_path: Path
):
    def content(images: list) -> str:
        return pack_images(images, 4, tmp_path / "store").manifest["content"]

    first = content(some_images())
    assert content(some_images()) == first
    assert content(some_images(c1=Row("c1", "c", ("x", "top"), "train"))) != first
    assert content([*some_images()[:3], (some_images()[3][0], partial(plain, value=9))]) != first


def test_a_packing_that_fails_leaves_the_store_that_was_there(
    pack_images: Callable[..., Store], tmp_path: Path
):
    before = pack_images(some_images(), 4, tmp_path / "store").manifest
    with pytest.raises(DatasetError, match="b2: cannot decode"):
        pack_images([*some_images()[:3], (some_images()[3][0], refuse)], 4, tmp_path / "store")
    after = Store(tmp_path / "store")
    assert after.manifest == before
    assert len(after) == 4
    assert not (tmp_path / "store" / "partial").exists()


def test_an_open_store_keeps_its_images_when_the_folder_is_packed_anew(
    pack_images: Callable[..., Store], tmp_path: Path
):
    opened = pack_images(some_images(), 4, tmp_path / "store")
    pack_images([(row, partial(plain, value=200)) for row, _ in some_images()], 2, opened.path)
    assert opened.read(np.arange(4))[0][:, 0, 3, 3].tolist() == [0, 1, 2, 3]


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
