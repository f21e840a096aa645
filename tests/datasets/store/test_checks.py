"""A damaged manifest or index is refused when the store is opened, with what is wrong."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmlbench.datasets.store.checks import read_manifest
from dmlbench.datasets.store.reader import Store
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
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


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
    "settings": (None, [], {"place": 3}, {"place": None, "archives": 3}),
}


@pytest.mark.parametrize("name", WRONG_VALUES)
def test_a_wrong_value_of_the_manifest_is_named(folder, name):
    right = read_manifest(folder)
    for value in WRONG_VALUES[name]:
        change_manifest(folder, **{name: value})
        with pytest.raises(DatasetError) as caught:
            Store(folder)
        assert str(caught.value) == (
            f"{folder}: no complete store of a data set: {name} in manifest.json is {value!r}. "
            f"Delete the folder and pack again."
        )
        assert read_manifest(folder) == {k: v for k, v in right.items() if k != name}


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
    files = read_manifest(folder)["files"]
    change_manifest(
        folder, files=files | {"index.parquet": (folder / "index.parquet").stat().st_size}
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


def test_a_changed_byte_of_a_column_is_refused_when_the_column_is_read(folder, glyphs):
    file = folder / "index.parquet"
    column = pq.ParquetFile(file).metadata.row_group(0)
    (place,) = (
        column.column(k).data_page_offset + column.column(k).total_compressed_size // 2
        for k in range(column.num_columns)
        if column.column(k).path_in_schema == "label"
    )
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    store = Store(folder)
    np.testing.assert_array_equal(store.index["split"], glyphs.index["split"])
    with pytest.raises(
        DatasetError, match=rf"^{folder}: it is damaged: index.*Delete the folder"
    ) as caught:
        store.split("train")
    assert "\n" not in str(caught.value)


def test_a_damaged_jpeg_of_a_store_is_named(pack_images, tmp_path):
    store = pack_images(some_images(), 8, tmp_path / "store", form="jpeg")
    content = bytearray((tmp_path / "store/images.bin").read_bytes())
    content[int(store.index["offset"][2])] ^= 0xFF
    (tmp_path / "store/images.bin").write_bytes(content)
    again = Store(tmp_path / "store")
    assert again[0].shape == (1, 8, 8)
    with pytest.raises(DatasetError, match=r"store: it is damaged: image 2: it is no JPEG file"):
        again[2]
