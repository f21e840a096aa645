"""A damaged manifest or index is refused when the store is opened, with what is wrong."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmlbench.datasets.store.checks import read_manifest
from dmlbench.datasets.store.reader import Store
from dmlbench.utils.digests import describe_file, write_with_digest
from dmlbench.utils.errors import DatasetError

from .made_images import some_images


@pytest.fixture
def folder(glyphs, tmp_path):
    """A copy of a store without its large file, which is linked."""
    copy = tmp_path / "store"
    copy.mkdir()
    for file in glyphs.path.iterdir():
        if file.suffix in (".json", ".parquet"):
            shutil.copy(file, copy)
    (copy / "images.bin").hardlink_to(glyphs.path / "images.bin")
    return copy


def change_manifest(folder, **changes):
    """Change values of the manifest, and its digest with them."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    del manifest["digest"]
    write_with_digest(folder / "manifest.json", manifest | changes)


WRONG_VALUES = {
    "type": (None, 3),
    "side": (None, 0, True, 64.0, "64"),
    "store": (None, "png", []),
    "channels": (None, 2, 1.0, True, "3"),
    "facts": (None, []),
    "images": (None, 0, -1, 3.5),
    "splits": (None, [], {"train": 3}, {"train": [1]}, {"train": [1, "2"]}, {"train": [0, 1]}),
    "content": (None, 3),
    "files": (None, {}, {"images.bin": 1}, {"../x": 1}),
    "digests": (None, {}, {"index.parquet": "0"}, {"index.parquet": 3, "protocols.parquet": "0"}),
    "settings": (None, [], {"place": 3}, {"place": None, "archives": 3}),
}


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_a_wrong_value_of_the_manifest_is_named(folder, name):
    for value in WRONG_VALUES[name]:
        change_manifest(folder, **{name: value})
        with pytest.raises(DatasetError) as caught:
            Store(folder)
        assert str(caught.value) == (
            f"{folder}: no complete store of a data set: {name} in manifest.json is {value!r}. "
            f"Delete the folder, and `snakemake data` packs it again."
        )
        assert read_manifest(folder) == {}


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"3", b"{", b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_no_object_is_refused(folder, content):
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(DatasetError, match="no complete store of a data set"):
        Store(folder)
    assert read_manifest(folder) == {}


def test_a_store_without_a_manifest_has_an_empty_one(tmp_path):
    assert read_manifest(tmp_path) == {}


def write_index(folder, table):
    pq.write_table(table, folder / "index.parquet")
    manifest, record = read_manifest(folder), describe_file(folder / "index.parquet")
    change_manifest(
        folder,
        files=manifest["files"] | {"index.parquet": record["bytes"]},
        digests=manifest["digests"] | {"index.parquet": record["sha256"]},
    )


def index_of(folder):
    return pq.read_table(folder / "index.parquet")


def with_column(table, name, values):
    return table.set_column(
        table.column_names.index(name), name, pa.array(values, table[name].type)
    )


def with_first(table, name, value):
    return with_column(table, name, [value, *table[name].to_pylist()[1:]])


WRONG_INDICES = {
    "a column less": (
        lambda table: table.drop_columns(["label"]),
        "label in index.parquet is missing, not int32",
    ),
    "another type": (
        lambda table: table.set_column(1, "path", table["id"]),
        "path in index.parquet is int32, not string",
    ),
    "a level of numbers": (
        lambda table: table.append_column("level_2", table["id"]),
        "level_2 in index.parquet is int32, not string",
    ),
    "rows less": (lambda table: table.slice(1), "its files do not belong together"),
    "a wrong offset": (lambda table: with_first(table, "offset", 1), "do not belong together"),
    "a negative offset": (lambda table: with_first(table, "offset", -1), "do not belong together"),
    "a wrong height": (lambda table: with_first(table, "height", 1), "do not belong together"),
    "no height": (lambda table: with_first(table, "height", 0), "do not belong together"),
}


@pytest.mark.parametrize("case", WRONG_INDICES)
def test_an_index_that_does_not_fit_is_refused(folder, case):
    change, message = WRONG_INDICES[case]
    write_index(folder, change(index_of(folder)))
    with pytest.raises(DatasetError, match=f"^{folder}: no complete store.*: .*{message}"):
        Store(folder)


def test_an_empty_cell_is_refused_when_its_column_is_read(folder):
    write_index(folder, with_first(index_of(folder), "class_name", None))
    store = Store(folder)
    with pytest.raises(
        DatasetError, match=r"it is damaged: index\.parquet: class_name lacks values"
    ):
        store.split("train")


@pytest.fixture
def with_pairs(folder):
    """A store with all four small files."""
    pairs = pa.table({"first": [0], "second": [1], "same": [True], "fold": [0]})
    pq.write_table(pairs, folder / "pairs.parquet")
    manifest, record = read_manifest(folder), describe_file(folder / "pairs.parquet")
    change_manifest(
        folder,
        files=manifest["files"] | {"pairs.parquet": record["bytes"]},
        digests=manifest["digests"] | {"pairs.parquet": record["sha256"]},
    )
    Store(folder)
    return folder


@pytest.mark.parametrize(
    "name", ["manifest.json", "index.parquet", "protocols.parquet", "pairs.parquet"]
)
def test_a_changed_bit_of_a_small_file_is_refused_when_the_store_is_opened(with_pairs, name):
    file, rng = with_pairs / name, np.random.default_rng(0)
    right = file.read_bytes()
    for place in rng.integers(8 * len(right), size=100):
        content = bytearray(right)
        content[place // 8] ^= 1 << place % 8
        file.write_bytes(content)
        with pytest.raises(DatasetError) as caught:
            Store(with_pairs)
        message = str(caught.value)
        assert message.startswith(f"{with_pairs}: no complete store of a data set: ")
        assert message.endswith(". Delete the folder, and `snakemake data` packs it again.")
        assert "\n" not in message
        if name != "manifest.json":
            assert f"{name} is damaged: it is not the file that was packed" in message


def test_the_tables_of_another_store_are_refused(folder, pack_images, tmp_path):
    other = pack_images(some_images(), 8, tmp_path / "other").path
    for name in ("index.parquet", "protocols.parquet", "manifest.json"):
        right = (folder / name).read_bytes()
        shutil.copy(other / name, folder / name)
        with pytest.raises(DatasetError, match="no complete store of a data set"):
            Store(folder)
        (folder / name).write_bytes(right)
    Store(folder)


def test_a_damaged_jpeg_of_a_store_is_named(pack_images, tmp_path):
    store = pack_images(some_images(), 8, tmp_path / "store", form="jpeg")
    content = bytearray((tmp_path / "store/images.bin").read_bytes())
    content[int(store.index["offset"][2])] ^= 0xFF
    (tmp_path / "store/images.bin").write_bytes(content)
    again = Store(tmp_path / "store")
    assert again[0].shape == (1, 8, 8)
    with pytest.raises(DatasetError, match=r"store: it is damaged: image 2: it is no JPEG file"):
        again[2]
