"""The content of a packed store, and the data sets that packing refuses."""

import itertools
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dmlbench.cli.main import main
from dmlbench.datasets import Row
from dmlbench.datasets.store.pack import pack
from dmlbench.datasets.store.reader import Store
from dmlbench.utils.errors import DatasetError

from .made_images import fail, solid, some_images


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()[:32]


def test_index_and_protocol_hold_what_the_rows_say(
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


def test_the_content_digest_depends_on_pixels_and_index_but_not_on_the_order_of_arrival(
    pack_images: Callable[..., Store], tmp_path: Path
):
    numbers = itertools.count()

    def content(images: list, **options: object) -> str:
        return pack_images(images, 4, tmp_path / f"{next(numbers)}", **options).manifest["content"]

    first = content(some_images())
    assert content(some_images()[::-1]) == first
    assert content(some_images(c1=Row("c1", "c", ("x", "top"), "train"))) != first
    assert content([*some_images()[:3], (some_images()[3][0], partial(solid, value=9))]) != first
    assert content(some_images(), hooks={"pairs": lambda *_: [(0, 1, True, 0)]}) != first
    assert content(some_images(b2=Row("b2", "b", ("x", "top"), "test", "query"))) != first


def test_protocols_and_pairs_of_a_data_set_are_written(
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


def test_a_failed_packing_keeps_the_old_store(pack_images: Callable[..., Store], tmp_path: Path):
    before = pack_images(some_images(), 4, tmp_path / "store").manifest
    with pytest.raises(DatasetError, match=r"b2: cannot decode.*\nWhat is decoded is kept"):
        pack_images([*some_images()[:3], (some_images()[3][0], fail)], 2, tmp_path / "store")
    after = Store(tmp_path / "store")
    assert after.manifest == before
    assert len(after) == 4


def test_a_complete_store_is_kept_and_a_damaged_store_is_packed_again(
    pack_images: Callable[..., Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    first = pack_images(some_images(), 4, tmp_path / "store")
    manifest = first.path / "manifest.json"
    stamp = manifest.stat().st_mtime_ns
    pack_images([(row, fail) for row, _ in some_images()], 4, first.path)
    assert manifest.stat().st_mtime_ns == stamp
    assert "it is there already" in capsys.readouterr().out
    with (first.path / "index.parquet").open("ab") as file:
        file.write(b"x")
    assert pack_images(some_images(), 4, first.path).manifest == first.manifest


def test_in_a_read_only_folder_a_complete_store_is_found_and_another_store_is_an_error(
    pack_images: Callable[..., Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = pack_images(some_images(), 4, tmp_path / "store")
    (store.path / ".lock").unlink()
    (store.path / ".lock").mkdir()  # cannot be opened, not even by root
    pack_images(some_images(), 4, store.path)
    assert "it is there already" in capsys.readouterr().out
    with pytest.raises(DatasetError, match=r"store cannot be written: .*DMLBENCH_DATA"):
        pack_images(some_images(), 2, store.path)


def test_an_open_store_keeps_its_content_when_the_folder_is_packed_again(
    pack_images: Callable[..., Store], tmp_path: Path
):
    opened = pack_images(some_images(), 4, tmp_path / "store")
    renamed = [(row._replace(path=f"new {row.path}"), image) for row, image in some_images()]
    pack_images(renamed, 2, opened.path)
    assert [image[0, 3, 3] for image in opened] == [1, 0, 3, 2]
    assert opened.index["path"].tolist() == ["a1", "b1", "b2", "c1"]


def test_only_images_that_are_known_to_be_damaged_are_left_out(
    pack_images: Callable[..., Store], tmp_path: Path
):
    images = [*some_images()[:3], (some_images()[3][0], fail)]
    store = pack_images(images, 4, tmp_path / "store", hooks={"KNOWN_CORRUPT": ("b2",)})
    assert store.index["path"].tolist() == ["a1", "b1", "c1"]
    with pytest.raises(DatasetError, match="b2: cannot decode"):
        pack_images(images, 4, tmp_path / "other", hooks={"KNOWN_CORRUPT": ("b1",)})


def test_the_manifest_counts_the_cropped_images(
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
        (["csv", "32", "{}"], "'csv' needs options .*--options"),
        (
            ["csv", "32", "{}", "--options", '{"fil": "a.csv"}'],
            "--options of 'csv':\n.*Did you mean 'file'",
        ),
        (
            ["csv", "32", "{}", "--options", '{"file": 3}'],
            "--options of 'csv':\n.*file: found 3. Allowed: text",
        ),
        (["csv", "32", "{}", "--options", "{}"], "'csv' needs options"),
        (["cvs", "32", "{}", "--options", "{}"], "no data set 'cvs'. Did you mean 'csv'?"),
        (["glyphs", "32", "{}", "--options", '{"file": "a.csv"}'], "'glyphs' has no options"),
        (["glyphs", "32", '{"a.zip": "md5:0"}'], r"unknown archive: a\.zip \(known: none\)"),
        (
            ["cub200", "32", '{"CUB_200_2011.tgz": "97ee"}'],
            r"CUB_200_2011\.tgz: '97ee' does not beg",
        ),
    ],
)
def test_a_mistake_in_the_command_prints_one_message(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DMLBENCH_DATA", str(tmp_path))
    name, side, checksums, *options = arguments
    store = str(tmp_path / "store")
    with pytest.raises(SystemExit) as end:
        main(["data", "pack", name, side, checksums, "pixels", store, *options])
    assert re.match(f"dmlbench: .*{message}", str(end.value.code))


def test_images_without_a_pixel_are_not_packed(tmp_path: Path):
    with pytest.raises(DatasetError, match="the short side is 0, and not 1 pixel or more"):
        pack("glyphs", 0, tmp_path / "store", tmp_path, {})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{CUB_200_2011.tgz: md5:0}", "is not JSON (Expecting property name"),
        ("", "is not JSON"),
        ('["md5:0"]', 'argument checksums: ["md5:0"] is no JSON object'),
        ("null", "null is no JSON object"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
    ],
)
@pytest.mark.parametrize("command", ["pack", "fetch", "options"])
def test_an_argument_that_is_no_json_object_is_quoted_beside_an_example(
    command: str, text: str, problem: str, capsys: pytest.CaptureFixture[str]
):
    arguments = {
        "pack": ["pack", "cub200", "8", text, "pixels", "store"],
        "fetch": ["fetch", "cub200", text],
        "options": ["pack", "csv", "8", "{}", "pixels", "store", "--options", text],
    }
    with pytest.raises(SystemExit) as end:
        main(["data", *arguments[command]])
    assert end.value.code == 2
    errors = capsys.readouterr().err
    assert (
        problem.replace("checksums", "--options" if command == "options" else "checksums") in errors
    )


def test_paths_and_classes_are_unicode(pack_images: Callable[..., Store], tmp_path: Path):
    names = ["Ωmega/ä 1.png", "日本/猫\n.png", "z", "😀.jpg", "\uffee"]
    images = [(Row(name, name, (), "train"), solid) for name in names]
    store = pack_images(images, 4, tmp_path / "store")
    assert store.index["path"].tolist() == sorted(names)
    torn = [(Row("b\udcff", "b", (), "train"), solid)]
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
def test_contradicting_rows_are_refused(
    pack_images: Callable[..., Store], tmp_path: Path, changed: dict[str, Row], message: str
):
    with pytest.raises(DatasetError, match=message):
        pack_images(some_images(**changed), 4, tmp_path / "store")


def test_a_split_other_than_the_declared_one_is_refused(
    pack_images: Callable[..., Store], tmp_path: Path
):
    splits = {"train": [2, 2], "test": [1, 3]}
    with pytest.raises(DatasetError, match="test: found 1 class and 2 images, expected 1 and 3"):
        pack_images(some_images(), 4, tmp_path / "store", splits=splits)
    with pytest.raises(DatasetError, match="no images"):
        pack_images([], 4, tmp_path / "store")


def test_images_and_tables_are_on_the_disk_before_the_manifest(
    pack_images: Callable[..., Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced, wait = [], os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        wait(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    store = pack_images([(Row("a", "a", (), "train"), solid)], 2, tmp_path / "store")
    manifest = next(name for name in synced if "manifest" in name)
    before = synced[: synced.index(manifest)]
    assert {*before} >= {"images.bin", *store.manifest["digests"], "store"}
