"""The user's own images: facts, store, and messages about missing or damaged images."""

import re
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmlbench.datasets import csv as csv_module
from dmlbench.datasets import load, own_images
from dmlbench.datasets.csv import Csv
from dmlbench.datasets.store.pack import pack
from dmlbench.datasets.store.reader import Store
from dmlbench.utils import discovery
from dmlbench.utils.errors import DatasetError

from .made_csv import (
    FRUIT,
    HEADER,
    colour,
    encode,
    example_rows,
    options,
    pack_csv,
    write_csv,
    write_zip,
)

pytestmark = pytest.mark.usefixtures("cache_folder")


REAL = Path(__file__).parents[2].parent / "shared" / "data" / "grocery" / "grocery.zip"


def test_a_folder_a_zip_and_a_zip_next_to_the_csv_give_the_same_store(tmp_path):
    stores = [
        pack_csv(tmp_path / "a", write_csv(tmp_path / "folder")),
        pack_csv(tmp_path / "b", write_zip(tmp_path / "zip", prefix="top/")),
        pack_csv(
            tmp_path / "c",
            write_csv(tmp_path / "beside", images=False),
            images=str(write_zip(tmp_path / "zip2", inside=False)),
        ),
    ]
    assert len({store.manifest["content"] for store in stores}) == 1
    assert stores[0].manifest["facts"] == stores[1].manifest["facts"] == stores[2].manifest["facts"]
    store = stores[0]
    assert store.manifest["splits"] == {"train": [2, 6], "test": [2, 6]}
    train, test = store.split("train"), store.split("test")
    assert (train.class_names, test.class_names) == (["Fuji", "Gala"], ["Anjou", "Conference"])
    assert train.parents.tolist() == test.parents.tolist() == [[0, 0]]
    assert store.index["path"].tolist() == sorted(row.partition(",")[0] for row in example_rows())
    for image, path in zip(store, store.index["path"], strict=True):
        assert (image == np.reshape(colour(path), (3, 1, 1))).all()


def test_the_order_of_rows_and_columns_and_the_folder_do_not_change_the_facts(tmp_path):
    rows = example_rows()
    first = Csv(**options(write_csv(tmp_path / "a", rows))).FACTS
    assert first == Csv(**options(write_csv(tmp_path / "b", rows[::-1]))).FACTS
    swapped = [",".join(row.split(",")[::-1]) for row in rows]
    file = write_csv(tmp_path / "c", swapped, "split,coarse,label,path", images=False)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n\r\n"))
    assert first == Csv(**options(file)).FACTS


@pytest.mark.parametrize(
    ("old", "new", "given"),
    [
        ("Fuji,Apple", "Red,Apple", {}),
        ("Apple/Fuji_0", "Apple/Fuji_9", {}),
        ("Fuji,Apple,train", "Fuji,Apple,test", {}),
        ("Apple,", "Pome,", {}),
        ("", "", {"channels": 1}),
        ("", "", {"revision": 2}),
        ("coarse", "top", {"levels": ("top",)}),
    ],
)
def test_every_change_that_could_change_a_result_changes_the_facts(tmp_path, old, new, given):
    file = write_csv(tmp_path)
    before = Csv(**options(file)).FACTS
    file.write_text(file.read_text().replace(old, new))
    assert before != Csv(**options(file, **given)).FACTS


def test_another_split_or_other_roles_with_equal_counts_change_the_facts(tmp_path):
    rows = [f"{row},{'query' if k % 2 else 'both'}" for k, row in enumerate(example_rows())]
    rows = [row if ",test," in row else row.rpartition(",")[0] + "," for row in rows]
    swap = {"train": "test", "test": "train"}
    swapped = [",".join([*row.split(",")[:3], swap[row.split(",")[3]], ""]) for row in rows]
    no_roles = [row.rpartition(",")[0] + "," for row in rows]
    facts = [
        Csv(**options(write_csv(tmp_path / str(k), variant, f"{HEADER},role", images=False))).FACTS
        for k, variant in enumerate((rows, swapped, no_roles))
    ]
    assert facts[0]["splits"] == facts[1]["splits"] == facts[2]["splits"]
    assert len({variant["rows"] for variant in facts}) == 3


def test_the_roles_of_the_rows_are_in_the_protocol(tmp_path):
    roles = {"0": "query", "1": "gallery", "2": ""}
    rows = [
        f"{row},{roles[row.split('.')[0][-1]] if row.endswith('test') else ''}"
        for row in example_rows()
    ]
    store = pack_csv(tmp_path / "store", write_csv(tmp_path, rows, f"{HEADER},role"))
    ids, roles = store.protocols["id"], store.protocols["role"]
    queries, gallery = ids[roles != "gallery"], ids[roles != "query"]
    paths = store.index["path"]
    assert paths[queries].tolist() == [
        f"Pear/{c}_{k}.png" for c in FRUIT if c[0] in "AC" for k in "02"
    ]
    assert paths[gallery].tolist() == [
        f"Pear/{c}_{k}.png" for c in FRUIT if c[0] in "AC" for k in "12"
    ]


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_all_missing_images_are_named_before_the_first_is_decoded(tmp_path, zipped, monkeypatch):
    file = write_zip(tmp_path) if zipped else write_csv(tmp_path)
    if zipped:
        with zipfile.ZipFile(file, "a") as archive:
            rows = [*example_rows(), "Pear/none.png,Anjou,Pear,test", "x/none.png,Anjou,Pear,test"]
            kept = {name: archive.read(name) for name in archive.namelist()}
        kept["metadata.csv"] = "\n".join([HEADER, *rows]).encode()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in kept.items():
                archive.writestr(name, content)
    else:
        with file.open("a") as opened:
            opened.write("Pear/none.png,Anjou,Pear,test\nx/none.png,Anjou,Pear,test\n")
    monkeypatch.setattr(
        "dmlbench.datasets.store.pack.decode", lambda images, *_: iter([next(images)])
    )
    with pytest.raises(DatasetError) as error:
        pack_csv(tmp_path / "store", file)
    assert "2 images are not in" in str(error.value)
    assert f"{file}, line 14: no file Pear/none.png" in str(error.value)
    assert f"{file}, line 15: no file x/none.png" in str(error.value)
    with pytest.raises(DatasetError, match="there is no folder or zip"):
        Csv(**options(file, images=str(tmp_path / "nowhere"))).check()


def test_all_unreadable_images_are_named_with_their_lines(tmp_path):
    file = write_csv(tmp_path)
    (tmp_path / "Apple/Gala_1.png").write_bytes(encode("x")[:40])
    (tmp_path / "Pear/Anjou_2.png").write_text("no image")
    deep = Image.fromarray(np.full((9, 9), 40_000, np.uint16))
    deep.save(tmp_path / "Pear/Conference_0.png")
    with pytest.raises(DatasetError) as error:
        pack_csv(tmp_path / "store", file)
    for line, path in ((3, "Apple/Gala_1"), (10, "Pear/Anjou_2"), (11, "Pear/Conference_0")):
        assert f"{file}, line {line}: {path}.png: cannot decode this image" in str(error.value)
    assert "more than 8 bits a pixel" in str(error.value)
    assert str(error.value).count("cannot decode this image") == 3
    assert not (tmp_path / "store/manifest.json").exists()


def damage(file, name):
    """Change the first byte of the file `name` in a zip."""
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo(name).header_offset + 30 + len(name)
    content = bytearray(file.read_bytes())
    content[start] ^= 0xFF
    file.write_bytes(content)


def test_all_damaged_images_of_a_zip_are_named_with_their_lines(tmp_path):
    file = write_zip(tmp_path)
    damage(file, "Apple/Gala_1.png")
    damage(file, "Pear/Anjou_2.png")
    with pytest.raises(DatasetError) as error:
        pack_csv(tmp_path / "store", file)
    for line, path in ((3, "Apple/Gala_1"), (10, "Pear/Anjou_2")):
        where = f"{file}, line {line}: {path}.png: cannot decode this image"
        assert re.search(f"{re.escape(where)}.*CRC-32", str(error.value))
    damage(file, "metadata.csv")
    with pytest.raises(DatasetError, match=r"my\.zip: cannot read metadata\.csv: Bad CRC-32"):
        _ = Csv(**options(file)).FACTS


def add_link(archive):
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    archive.writestr(link, "/etc/passwd")


def encrypt(archive):
    archive.infolist()[3].flag_bits |= 1


HOSTILE = {
    "link": (add_link, "link.png is a link"),
    "traversal": (lambda archive: archive.writestr("../x.png", b""), "leads out of the archive"),
    "twice": (lambda archive: archive.writestr("./LICENSE", b""), "LICENSE is there twice"),
    "encrypted": (encrypt, "is encrypted"),
}


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_or_encrypted_zip_is_refused(tmp_path, case, inside):
    change, message = HOSTILE[case]
    file, beside = write_zip(tmp_path, inside), tmp_path / "my.csv"
    with zipfile.ZipFile(file, "a") as archive:
        change(archive)
        archive.writestr("more.txt", b"")  # so that the directory is written again
    given = {} if inside else {"images": str(file)}
    with pytest.raises(DatasetError, match=rf"my\.zip: this archive is refused: .*{message}"):
        Csv(**options(file if inside else beside, **given)).check()


def test_all_images_get_the_declared_number_of_channels(tmp_path):
    file = write_csv(tmp_path)
    for k, mode in enumerate(("L", "P", "RGBA")):
        (tmp_path / f"Apple/Gala_{k}.png").write_bytes(encode("x", mode=mode))
    gray = pack_csv(tmp_path / "gray", file, channels=1)
    assert (gray.channels, pack_csv(tmp_path / "colour", file).channels) == (1, 3)
    value = np.asarray(Image.new("RGB", (1, 1), colour("x")).convert("L"))[0, 0]
    for image in (gray[3], gray[5]):  # a palette has few colours, so its values differ
        assert np.abs(image.astype(int) - value).max() <= 1


def test_images_are_turned_upright(tmp_path):
    file = write_csv(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees
    (tmp_path / "Apple/Fuji_0.png").write_bytes(encode("x", (8, 6), kind="JPEG", exif=exif))
    assert pack_csv(tmp_path / "store", file).sizes[:2].tolist() == [[8, 6], [6, 8]]


def test_the_facts_are_cached_until_the_file_is_touched(tmp_path, cache_folder, monkeypatch):
    file = write_csv(tmp_path, images=False)
    first = Csv(**options(file)).FACTS
    assert not list(
        cache_folder.glob("rows-*")
    )  # too fresh: it may change again within the same tick of the clock
    monkeypatch.setattr(own_images, "FRESH", -1)
    assert first == Csv(**options(file)).FACTS
    assert len(list(cache_folder.glob("rows-*"))) == 1
    monkeypatch.setattr(csv_module, "read_rows", None)  # a call would fail
    assert first == Csv(**options(file)).FACTS
    assert first | {"revision": 2} == Csv(**options(file, revision=2)).FACTS
    monkeypatch.undo()
    monkeypatch.setenv("DMLBENCH_CACHE", str(cache_folder))
    file.write_text(file.read_text().replace("Fuji,Apple", "Kiku,Apple"))
    assert first != Csv(**options(file)).FACTS


def test_an_unwritable_cache_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(own_images, "FRESH", -1)
    monkeypatch.setenv("DMLBENCH_CACHE", "/dev/null/cache")
    assert discovery.cache_folder() == Path("/dev/null/cache")
    assert Csv(**options(write_csv(tmp_path, images=False))).FACTS["splits"]["train"] == [2, 6]


def test_load_passes_the_options_to_the_data_set(tmp_path):
    assert load("csv", options(write_csv(tmp_path), channels=1)).FACTS["channels"] == 1
    with pytest.raises(DatasetError, match="file: is missing"):
        load("csv", {"file": ""})


@pytest.mark.skipif(not REAL.is_file(), reason="the real archive is not on this machine")
def test_the_real_grocery_store_is_packed_within_30_seconds(tmp_path):
    started = time.monotonic()
    given = options(REAL, levels=("coarse", "top"))
    pack("csv", 64, tmp_path / "store", tmp_path, options=given)
    seconds = time.monotonic() - started
    store = Store(tmp_path / "store")
    assert store.manifest["splits"] == {"train": [41, 2781], "test": [40, 2640]}
    assert store.split("train").parents.shape == (2, 41)
    assert len(set(store.index["level_1"])) == 43
    assert len(set(store.index["level_2"])) == 3
    assert seconds < 30


def test_the_validation_part_of_a_csv_trains_and_can_be_told_from_the_rest(tmp_path):
    rows = [row.replace(",Gala,Apple,train", ",Gala,Apple,validation") for row in example_rows()]
    assert rows != example_rows()
    store = pack_csv(tmp_path / "store", write_csv(tmp_path / "folder", rows))
    counts = {"train": [1, 3], "validation": [1, 3], "test": [2, 6]}
    assert store.manifest["splits"] == store.manifest["facts"]["splits"] == counts
    train = store.split("train")
    assert train.class_names == ["Fuji", "Gala"]
    parts = store.index["split"][train.rows].tolist()
    names = [train.class_names[label] for label in train.labels]
    assert {*zip(names, parts, strict=True)} == {("Fuji", "train"), ("Gala", "validation")}
    assert store.protocols["id"].tolist() == store.split("test").rows.tolist()


def test_a_class_in_train_and_validation_is_refused(tmp_path):
    rows = [HEADER_WITH_SPLIT, "1.png,a,train", "2.png,a,validation", "3.png,b,test"]
    file = tmp_path / "my.csv"
    file.write_text("\n".join([*rows, "4.png,b,test"]))
    with pytest.raises(DatasetError, match=r"split of class 'a' is 'validation', and 'train' on"):
        Csv(file=str(file)).check()


HEADER_WITH_SPLIT = "path,label,split"
