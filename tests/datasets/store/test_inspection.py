import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dmlbench.cli.main import main
from dmlbench.datasets import Row, omniglot
from dmlbench.datasets.store.contact_sheet import SIDE, contact_sheet
from dmlbench.datasets.store.inspection import (
    describe,
    find_damage,
    fingerprints,
    list_data,
    verify,
)
from dmlbench.datasets.store.reader import Store
from dmlbench.study.study import read_study
from dmlbench.utils.digests import write_with_digest
from dmlbench.utils.errors import DatasetError


def gray(value: int, side: int) -> Image.Image:
    return Image.new("L", (side + value % 3, side), value)


def images() -> Iterator[tuple[Row, Callable[[int], Image.Image]]]:
    for label in range(4):
        for number in range(3):
            row = Row(f"ä{label}/{number}", f"class {label}", (), ("train", "test")[label % 2])
            yield row, partial(gray, 10 * label + number)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder that does not exist yet."""
    return tmp_path / "data"


@pytest.fixture(params=["pixels", "jpeg"])
def store(request, pack_images: Callable[..., Store], data: Path) -> Store:
    """A store whose manifest says that it is Omniglot."""
    packed = pack_images(list(images()), 8, data / "stores" / "omniglot-8-x", form=request.param)
    manifest = packed.manifest | {"type": "omniglot"}
    del manifest["digest"]
    write_with_digest(packed.path / "manifest.json", manifest)
    return Store(packed.path)


def test_the_list_names_archives_and_stores_that_are_there_or_missing(
    store: Store, data: Path, monkeypatch: pytest.MonkeyPatch
):
    (data / "archives").mkdir()
    (data / "archives/images_background.zip").write_bytes(b"x" * 2000)
    shutil.copytree(store.path, data / "stores" / "omniglot-8-torn")
    os.truncate(data / "stores/omniglot-8-torn/images.bin", 3)
    (data / "stores" / "being-packed").mkdir()
    text = list_data(data)
    lines = {line.split()[0].rstrip(":"): line for line in text.splitlines()}
    assert "1,623 classes, 32,460 images; missing: images_evaluation.zip" in lines["omniglot"]
    assert "12 images" in lines["omniglot-8-x"]
    assert "no complete store" in lines["omniglot-8-torn"]
    assert "no complete store" in lines["being-packed"]
    assert "needs no archive" in lines["glyphs"]
    (data / "archives/images_evaluation.zip").write_bytes(b"x" * 1000)
    assert "archives there: 3 kB" in list_data(data)
    two_layouts = ({"other.tgz": ("url", None)}, dict(omniglot.SOURCES))
    monkeypatch.setattr(omniglot, "SOURCES", two_layouts)
    assert "archives there: 3 kB" in list_data(data)
    (data / "archives/images_evaluation.zip").unlink()
    assert "missing: other.tgz or images_evaluation.zip" in list_data(data)


def test_an_empty_data_folder_is_no_error(data: Path):
    assert "glyphs" in list_data(data)
    assert "not packed" in describe("glyphs", None, None, data)


def test_fingerprints_can_be_computed_from_the_index_alone(store: Store):
    table = pd.read_parquet(store.path / "index.parquet").sort_values("path")
    for split, fingerprint in fingerprints(store).items():
        rows = table if split == "all" else table[table.split == split]
        lines = rows.path + "\t" + rows.class_name + "\t" + rows.split + "\n"
        assert fingerprint == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert set(fingerprints(store)) == {"train", "test", "all"}


def test_show_prints_facts_and_fingerprints_and_draws_a_contact_sheet(
    store: Store, data: Path, tmp_path: Path
):
    text = describe("omniglot", None, None, data)
    for part in (
        "1,623 handwritten characters",
        "19,280 images",
        "images_evaluation.zip: missing, md5:6b91aef0f799c5bb55b94e3f2daec811",
        "https://raw.githubusercontent.com",
        store.manifest["content"],
        fingerprints(store)["train"],
    ):
        assert part in text
    assert Image.open(store.path / "contact_sheet.png").size[0] > 10 * SIDE
    assert "handwritten" not in describe("omniglot-8-x", None, tmp_path / "sheet.png", data)
    assert Image.open(tmp_path / "sheet.png").size == contact_sheet(store).size
    assert "not packed with a short side of 9" in describe("omniglot", 9, None, data)
    assert "12" in describe("omniglot", 8, None, data)
    unwritable = tmp_path / "file"
    unwritable.write_text("")
    assert "--sheet" in describe("omniglot", 8, unwritable / "sheet.png", data)


def test_a_contact_sheet_has_one_row_for_each_class(store: Store):
    sheet = np.asarray(contact_sheet(store).convert("L")).astype(int)
    rows = [sheet[4 + 100 * line + 50, 200 + 50 :: 100][:3] for line in range(4)]
    # train, then test; each class's images by their paths
    expected = [[10 * label + number for number in range(3)] for label in (0, 2, 1, 3)]
    assert np.abs(np.array(rows) - expected).max() <= 2


def test_a_contact_sheet_prefers_classes_with_many_images(
    pack_images: Callable[..., Store], data: Path
):
    """Class k has k images: of 14 classes, those with 10 to 14 and the three below are shown."""
    rows = [
        (Row(f"{label:02}/{n:02}", f"class {label:02}", (), "test"), partial(gray, 10 * label))
        for label in range(1, 15)
        for n in range(label)
    ]
    sheet = np.asarray(contact_sheet(pack_images(rows, 8, data / "few")).convert("L")).astype(int)
    assert sheet[54::100, 250].tolist() == [10 * label for label in range(7, 15)]


def test_a_contact_sheet_spreads_over_all_classes_with_ten_images_and_over_their_images(
    pack_images: Callable[..., Store], data: Path
):
    rows = [
        (Row(f"{label:02}/{n:02}", f"class {label:02}", (), "test"), partial(gray, 10 * label + n))
        for label in range(20)
        for n in (range(19) if label % 2 else range(1))
    ]
    sheet = np.asarray(contact_sheet(pack_images(rows, 8, data / "many")).convert("L")).astype(int)
    shown = sheet[54::100, 250::100]
    assert shown[:, 0].tolist() == [10 * label for label in (1, 3, 7, 9, 11, 13, 17, 19)]
    assert (shown[0] - shown[0, 0]).tolist() == [*range(0, 19, 2)]  # of 19, every second


def test_verify_finds_changes_of_images_and_tables(store: Store, data: Path):
    assert [line for line in verify("omniglot", data) if "as packed" in line]
    assert find_damage(store.path) == []
    content = (store.path / "images.bin").read_bytes()
    changed = bytearray(content)
    changed[-1] ^= 1
    (store.path / "images.bin").write_bytes(changed)
    with pytest.raises(DatasetError, match=r"1 difference from what was packed.*\n.*ä3/2"):
        list(verify("omniglot-8-x", data))
    (store.path / "images.bin").write_bytes(content)
    table = pd.read_parquet(store.path / "index.parquet")
    table["label"] = table["label"].to_numpy()[::-1]
    table.to_parquet(store.path / "index.parquet")
    assert "the rows of" in find_damage(store.path)[0]
    with pytest.raises(DatasetError, match="no complete store"):  # its size differs
        list(verify(str(store.path), data))


@pytest.fixture
def damaged(store: Store, data: Path) -> Path:
    """A second store, with a damaged index."""
    folder = data / "stores" / "omniglot-8-a"
    shutil.copytree(store.path, folder)
    content = bytearray((folder / "index.parquet").read_bytes())
    column = pq.ParquetFile(folder / "index.parquet").metadata.row_group(0).column(1)
    assert column.path_in_schema == "path"
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    (folder / "index.parquet").write_bytes(content)
    return folder


def test_verify_names_a_damaged_store_and_continues_with_the_others(
    store: Store, damaged: Path, data: Path
):
    lines = verify("omniglot", data)
    assert next(lines).startswith(f"{store.path}: 12 images")
    problem = rf"{damaged}: .*index\.parquet is damaged: .*Delete the folder"
    with pytest.raises(DatasetError, match=problem):
        next(lines)


def test_show_prints_the_error_of_a_damaged_store_and_continues_with_the_others(
    store: Store, damaged: Path, data: Path
):
    old = data / "stores" / "omniglot-8-old"
    shutil.copytree(store.path, old)
    (old / "manifest.json").write_text(json.dumps(store.manifest | {"format": 1}))
    text = describe("omniglot", None, None, data)
    assert f"{damaged}: no complete store of a data set: index.parquet is damaged" in text
    assert f"{old}: no complete store of a data set: its format is 1" in text
    assert fingerprints(store)["train"] in text
    for folder in (damaged, old):
        with pytest.raises(DatasetError, match=str(folder)):
            describe(folder.name, None, None, data)


@pytest.mark.parametrize("manifest", [[], {"format": 2, "files": []}, {"files": 1}, 7])
def test_a_store_with_a_malformed_manifest_is_no_complete_store(
    store: Store, data: Path, manifest: object
):
    (store.path / "manifest.json").write_text(json.dumps(manifest))
    assert "omniglot-8-x: no complete store" in list_data(data)
    with pytest.raises(DatasetError, match="no complete store"):
        describe("omniglot-8-x", None, None, data)
    with pytest.raises(DatasetError, match="no complete store"):
        list(verify("omniglot-8-x", data))


def test_verify_refuses_a_name_without_a_store(data: Path):
    with pytest.raises(DatasetError, match="there is no store of it"):
        list(verify("glyphs", data))
    with pytest.raises(DatasetError, match=r"no data set and no packed images 'glyph'.*glyphs"):
        list(verify("glyph", data))


def test_stores_are_found_by_the_name_of_their_entry(pack_images: Callable[..., Store], data: Path):
    names = ["my.birds-8-0123abcd", "my.birds-16-jpeg-0123abcd", "my.birds2-8-0123abcd"]
    for name in names:
        pack_images(list(images()), 8, data / "stores" / name)
    assert [line.split("/")[-1].split(":")[0] for line in verify("my.birds", data)] == [
        names[1],
        names[0],
    ]
    assert describe("my.birds2", None, None, data).count("content ") == 1
    with pytest.raises(DatasetError) as error:
        describe("my.bird", None, None, data)
    assert "no packed images 'my.bird'. Did you mean 'my.birds'? Allowed: " in str(error.value)
    assert names[0] in str(error.value)
    assert "--study FILE" in str(error.value)


def test_an_entry_of_a_study_is_found_by_the_study(
    store: Store, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The entry `drawings` is Omniglot, so its store is not named after it."""
    monkeypatch.setenv("DMLBENCH_DATA", str(data))
    study = data / "my.yaml"
    study.write_text(
        "study: my\n"
        "datasets: {drawings: {type: omniglot}}\n"
        "backbones: {small: {type: test_resnet, image_size: 32}}\n"
        "plan: {datasets: [drawings], backbones: [small], losses: [triplet], seeds: [0]}\n"
    )

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(["data", *arguments, "--study", str(study)])
        return str(end.value.code) + capsys.readouterr().out

    assert "not packed" in run("show", "drawings")
    assert "there is no store of it" in run("verify", "drawings")
    assert "no data set 'drawing'. Did you mean 'drawings'? Allowed: " in run("show", "drawing")
    (name,) = read_study(study).stores
    store.path.rename(data / "stores" / name)
    assert store.manifest["content"] in run("show", "drawings")
    assert f"{name}: 12 images" in run("verify", "drawings")


def test_the_data_commands_print_the_list_the_facts_and_the_damage(
    store: Store, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("DMLBENCH_DATA", str(data))

    def run(*arguments: str) -> SimpleNamespace:
        with pytest.raises(SystemExit) as end:
            main(["data", *arguments])
        return SimpleNamespace(code=end.value.code, out=capsys.readouterr().out)

    assert "omniglot-8-x: 12 images" in run("list").out
    assert "fingerprint" in run("show", "omniglot", "--side", "8").out
    assert run("verify", "omniglot").code == 0
    changed = bytearray((store.path / "images.bin").read_bytes())
    changed[5] ^= 8
    (store.path / "images.bin").write_bytes(changed)
    assert "1 difference from what was packed" in run("verify", "omniglot").code
