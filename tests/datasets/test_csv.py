"""A user's own images: what the CSV says is in the store, and what is wrong is said by its line."""

import io
import random
import re
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dmlbench import installed
from dmlbench.datasets import DatasetError, load
from dmlbench.datasets import csv as csv_module
from dmlbench.datasets.csv import Csv
from dmlbench.datasets.metadata import _draw, read_rows
from dmlbench.datasets.pack import pack
from dmlbench.datasets.store import Store

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "grocery" / "grocery.zip"
HEADER = "path,label,coarse,split"
FRUIT = {"Gala": "Apple", "Fuji": "Apple", "Anjou": "Pear", "Conference": "Pear"}


def twin_rows():
    """Four classes in two super-classes, three images each; the first two classes train."""
    return [
        f"{coarse}/{label}_{k}.png,{label},{coarse},{'train' if i < 2 else 'test'}"
        for i, (label, coarse) in enumerate(FRUIT.items())
        for k in range(3)
    ]


def colour(path):
    """The one colour of the image `path`."""
    return tuple(random.Random(path).choices(range(256), k=3))


def encode(path, size=(8, 6), mode="RGB", kind="PNG", **extra):
    file = io.BytesIO()
    Image.new("RGB", size, colour(path)).convert(mode).save(file, kind, **extra)
    return file.getvalue()


def write(folder, rows=None, header=HEADER, images=True):
    """The CSV with its images beside it."""
    rows = twin_rows() if rows is None else rows
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "my.csv").write_text("\n".join([header, *rows]) + "\n")
    for path in {row.partition(",")[0] for row in rows} if images else ():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(encode(path))
    return folder / "my.csv"


def write_zip(folder, inside=True, prefix=""):
    """The same as a zip, the CSV in it or beside it."""
    file = write(folder)
    with zipfile.ZipFile(folder / "my.zip", "w") as archive:
        for path in (row.partition(",")[0] for row in twin_rows()):
            archive.writestr(prefix + path, encode(path))
        archive.writestr("LICENSE", "MIT")
        if inside:
            archive.write(file, f"{prefix}metadata.csv")
            archive.writestr("__MACOSX/._metadata.csv", "")
    return folder / "my.zip"


def options(file, **given):
    return {"file": str(file), "levels": ("coarse",), **given}


def packed(out, file, side=6, **given):
    pack("csv", side, out, out / "no-archives", workers=1, options=options(file, **given))
    return Store(out)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_folder_zip_and_zip_beside_the_csv_give_the_same_store(tmp_path):
    stores = [
        packed(tmp_path / "a", write(tmp_path / "folder")),
        packed(tmp_path / "b", write_zip(tmp_path / "zip", prefix="top/")),
        packed(
            tmp_path / "c",
            write(tmp_path / "beside", images=False),
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
    assert store.index["path"].tolist() == sorted(row.partition(",")[0] for row in twin_rows())
    for image, path in zip(store, store.index["path"], strict=True):
        assert (image == np.reshape(colour(path), (3, 1, 1))).all()


def test_the_order_of_rows_and_columns_and_the_place_do_not_change_the_facts(tmp_path):
    rows = twin_rows()
    first = Csv(**options(write(tmp_path / "a", rows))).FACTS
    assert first == Csv(**options(write(tmp_path / "b", rows[::-1]))).FACTS
    swapped = [",".join(row.split(",")[::-1]) for row in rows]
    file = write(tmp_path / "c", swapped, "split,coarse,label,path", images=False)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n\r\n"))
    assert first == Csv(**options(file)).FACTS


def test_a_path_means_the_same_however_it_is_spelt(tmp_path):
    rows = twin_rows()
    plain = Csv(**options(write(tmp_path / "a", rows)))
    spelt = [f"./{rows[0]}", rows[1].replace("/", "//"), rows[2].replace("/", "/./"), *rows[3:]]
    odd = Csv(**options(write(tmp_path / "b", spelt)))
    assert odd.FACTS == plain.FACTS
    odd.check()
    twice = write(tmp_path / "c", [*rows, f"./{rows[0]}"], images=False)
    with pytest.raises(DatasetError, match=r"line 14: path Apple/Gala_0\.png stands on line 2"):
        _ = Csv(**options(twice)).FACTS


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
def test_what_could_change_a_number_changes_the_facts(tmp_path, old, new, given):
    file = write(tmp_path)
    before = Csv(**options(file)).FACTS
    file.write_text(file.read_text().replace(old, new))
    assert before != Csv(**options(file, **given)).FACTS


def test_the_split_and_the_roles_of_the_same_numbers_of_images_change_the_facts(tmp_path):
    rows = [f"{row},{'query' if k % 2 else 'both'}" for k, row in enumerate(twin_rows())]
    rows = [row if ",test," in row else row.rpartition(",")[0] + "," for row in rows]
    swap = {"train": "test", "test": "train"}
    swapped = [",".join([*row.split(",")[:3], swap[row.split(",")[3]], ""]) for row in rows]
    no_roles = [row.rpartition(",")[0] + "," for row in rows]
    facts = [
        Csv(**options(write(tmp_path / str(k), made, f"{HEADER},role", images=False))).FACTS
        for k, made in enumerate((rows, swapped, no_roles))
    ]
    assert facts[0]["splits"] == facts[1]["splits"] == facts[2]["splits"]
    assert len({made["rows"] for made in facts}) == 3


def test_roles_are_in_the_protocol(tmp_path):
    roles = {"0": "query", "1": "gallery", "2": ""}
    rows = [
        f"{row},{roles[row.split('.')[0][-1]] if row.endswith('test') else ''}"
        for row in twin_rows()
    ]
    store = packed(tmp_path / "store", write(tmp_path, rows, f"{HEADER},role"))
    ids, roles = store.protocols["id"], store.protocols["role"]
    queries, gallery = ids[roles != "gallery"], ids[roles != "query"]
    paths = store.index["path"]
    assert paths[queries].tolist() == [
        f"Pear/{c}_{k}.png" for c in FRUIT if c[0] in "AC" for k in "02"
    ]
    assert paths[gallery].tolist() == [
        f"Pear/{c}_{k}.png" for c in FRUIT if c[0] in "AC" for k in "12"
    ]


@given(
    st.dictionaries(st.text("abc", min_size=1), st.sampled_from("xyz"), min_size=2), st.integers()
)
def test_without_a_split_half_of_the_classes_of_each_super_class_train(classes, seed):
    labels = [label for label in classes for _ in range(2)]
    supers = [(classes[label], "top") for label in labels]
    split = dict(zip(labels, drawn := _draw(labels, supers, seed), strict=True))
    assert [split[label] for label in labels] == drawn
    for group in {"all", *classes.values()}:
        here = [split[label] for label in classes if group in ("all", classes[label])]
        assert abs(here.count("train") - here.count("test")) <= 1


def test_the_drawn_split_is_of_its_seed_alone(tmp_path):
    rows = [row.rpartition(",")[0] for row in twin_rows()]
    file = write(tmp_path, rows, "path,label,coarse", images=False)
    splits = {
        seed: tuple(row.split for row in read_rows(file, ["coarse"], [], seed)) for seed in range(9)
    }
    assert splits[0] == tuple(row.split for row in read_rows(file, ["coarse"], [], 0))
    assert len(set(splits.values())) > 1
    drawn = {row.class_name: row.split for row in read_rows(file, ["coarse"], [], 0)}
    # Written down: a draw that moves would retrain, and score other classes
    assert drawn == {"Fuji": "test", "Gala": "train", "Anjou": "train", "Conference": "test"}


WRONG = {
    "both splits": (
        {2: "Apple/Gala_1.png,Gala,Apple,test"},
        "line 3: split of class 'Gala' is 'test', and 'train' on line 2",
    ),
    "two super-classes": (
        {3: "Apple/Gala_2.png,Gala,Pear,train"},
        "line 4: coarse of class 'Gala' is 'Pear', and 'Apple' on line 2",
    ),
    "one image": (
        {12: "Pear/Lone_2.png,Lone,Pear,test"},
        "line 13: class 'Lone' has this image alone",
    ),
    "empty label": ({5: "Apple/Fuji_1.png, ,Apple,train"}, "line 6: label is empty"),
    "empty level": ({5: "Apple/Fuji_1.png,Fuji,,train"}, "line 6: coarse is empty"),
    "twice": ({6: twin_rows()[3]}, "line 7: path Apple/Fuji_0.png stands on line 5 already"),
    "split": (
        {4: "Apple/Fuji_0.png,Fuji,Apple,Train"},
        "line 5: split is 'Train', and not train or test",
    ),
    "outside": (
        {4: "../Fuji_0.png,Fuji,Apple,train"},
        "line 5: path ../Fuji_0.png leads out of the images' folder",
    ),
    "short row": ({4: "Apple/Fuji_0.png,Fuji"}, "line 5: 2 values for 4 columns"),
    "open quote": ({12: '"Pear/Conference_2.png,Conference'}, "line 13: unexpected end of data"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_row_is_named_by_its_line(tmp_path, case):
    changes, message = WRONG[case]
    rows = twin_rows()
    for number, row in changes.items():
        rows[number - 1] = row
    file = write(tmp_path, rows, images=False)
    with pytest.raises(DatasetError) as caught:
        _ = Csv(**options(file)).FACTS
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_all_wrong_rows_are_named_in_order_up_to_a_limit(tmp_path):
    rows = [f"{k}.png,{'' if k % 2 else 'a'},x,train" for k in range(60)]
    with pytest.raises(DatasetError) as caught:
        _ = Csv(**options(write(tmp_path, rows, images=False))).FACTS
    first, *lines, last = str(caught.value).splitlines()
    assert "30 of its rows are wrong" in first
    assert [line.strip() for line in lines] == [
        f"line {k + 2}: label is empty" for k in range(1, 40, 2)
    ]
    assert last.strip() == "... and 10 more"


HEADERS = {
    "path,label,coarse,splt": "column 'splt' is unknown. Did you mean 'split'?",
    "path,class,coarse,split": "column 'label' is missing",
    "path,label,top,split": "column 'coarse' is missing",
    "path,label,coarse,role": "column 'role' needs a column 'split'",
    "path,label,coarse,coarse": "column 'coarse' stands there twice",
    "path;label;coarse;split": "column 'path' is missing",
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_wrong_column_is_named(tmp_path, header):
    with pytest.raises(DatasetError) as caught:
        _ = Csv(**options(write(tmp_path, header=header, images=False))).FACTS
    assert HEADERS[header] in str(caught.value)


def test_a_column_that_does_not_matter_is_named_to_be_ignored(tmp_path):
    rows = [f"{row},{k}" for k, row in enumerate(twin_rows())]
    file = write(tmp_path, rows, f"{HEADER},width", images=False)
    with pytest.raises(DatasetError, match=r"column 'width' is unknown.*`ignore`"):
        _ = Csv(**options(file)).FACTS
    plain = write(tmp_path / "plain", images=False)
    assert Csv(**options(file, ignore=("width",))).FACTS == Csv(**options(plain)).FACTS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\na,\xff\n", "line 2: this is not UTF-8"),
        (b"", "no rows"),
        (b"path,label,split\n", "no rows"),
        (b"path,label,split\na,x,train\nb,x,train\n", "no class is in the split test"),
        (
            b"path,label,split,role\na,x,train,\nb,x,train,\nc,y,test,query\nd,y,test,query\n",
            "gallery",
        ),
        (None, "cannot read .*my.csv"),
    ],
)
def test_a_file_without_a_data_set_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "my.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        _ = Csv(file=str(tmp_path / "my.csv")).FACTS


def test_a_zip_without_one_csv_is_refused(tmp_path):
    (tmp_path / "no.zip").write_text("no zip")
    with pytest.raises(DatasetError, match=r"no\.zip: cannot read this zip"):
        _ = Csv(file=str(tmp_path / "no.zip")).FACTS
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", "")
        archive.writestr("b.csv", "")
    with pytest.raises(DatasetError, match=r"two\.zip: it holds a\.csv, b\.csv"):
        _ = Csv(file=str(tmp_path / "two.zip")).FACTS


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_missing_images_are_all_named_before_the_first_is_decoded(tmp_path, zipped, monkeypatch):
    file = write_zip(tmp_path) if zipped else write(tmp_path)
    if zipped:
        with zipfile.ZipFile(file, "a") as archive:
            rows = [*twin_rows(), "Pear/none.png,Anjou,Pear,test", "x/none.png,Anjou,Pear,test"]
            kept = {name: archive.read(name) for name in archive.namelist()}
        kept["metadata.csv"] = "\n".join([HEADER, *rows]).encode()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in kept.items():
                archive.writestr(name, content)
    else:
        with file.open("a") as opened:
            opened.write("Pear/none.png,Anjou,Pear,test\nx/none.png,Anjou,Pear,test\n")
    monkeypatch.setattr("dmlbench.datasets.pack.decode", lambda images, *_: iter([next(images)]))
    with pytest.raises(DatasetError) as caught:
        packed(tmp_path / "store", file)
    assert "2 images are not in" in str(caught.value)
    assert f"{file}, line 14: no file Pear/none.png" in str(caught.value)
    assert f"{file}, line 15: no file x/none.png" in str(caught.value)
    with pytest.raises(DatasetError, match="there is no folder or zip"):
        Csv(**options(file, images=str(tmp_path / "nowhere"))).check()


def test_unreadable_images_are_all_named_by_their_lines(tmp_path):
    file = write(tmp_path)
    (tmp_path / "Apple/Gala_1.png").write_bytes(encode("x")[:40])
    (tmp_path / "Pear/Anjou_2.png").write_text("no image")
    deep = Image.fromarray(np.full((9, 9), 40_000, np.uint16))
    deep.save(tmp_path / "Pear/Conference_0.png")
    with pytest.raises(DatasetError) as caught:
        packed(tmp_path / "store", file)
    for line, path in ((3, "Apple/Gala_1"), (10, "Pear/Anjou_2"), (11, "Pear/Conference_0")):
        assert f"{file}, line {line}: {path}.png: cannot decode this image" in str(caught.value)
    assert "more than 8 bits a pixel" in str(caught.value)
    assert str(caught.value).count("cannot decode this image") == 3
    assert not (tmp_path / "store/manifest.json").exists()


def damage(file, name):
    """Change the first byte of what the zip keeps of `name`."""
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo(name).header_offset + 30 + len(name)
    content = bytearray(file.read_bytes())
    content[start] ^= 0xFF
    file.write_bytes(content)


def test_damaged_images_of_a_zip_are_all_named_by_their_lines(tmp_path):
    file = write_zip(tmp_path)
    damage(file, "Apple/Gala_1.png")
    damage(file, "Pear/Anjou_2.png")
    with pytest.raises(DatasetError) as caught:
        packed(tmp_path / "store", file)
    for line, path in ((3, "Apple/Gala_1"), (10, "Pear/Anjou_2")):
        where = f"{file}, line {line}: {path}.png: cannot decode this image"
        assert re.search(f"{re.escape(where)}.*CRC-32", str(caught.value))
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
        archive.writestr("more.txt", b"")  # so that the directory is written anew
    given = {} if inside else {"images": str(file)}
    with pytest.raises(DatasetError, match=rf"my\.zip: this archive is refused: .*{message}"):
        Csv(**options(file if inside else beside, **given)).check()


def test_channels_are_the_declared_ones_whatever_the_images_are(tmp_path):
    file = write(tmp_path)
    for k, mode in enumerate(("L", "P", "RGBA")):
        (tmp_path / f"Apple/Gala_{k}.png").write_bytes(encode("x", mode=mode))
    gray = packed(tmp_path / "gray", file, channels=1)
    assert (gray.channels, packed(tmp_path / "colour", file).channels) == (1, 3)
    value = np.asarray(Image.new("RGB", (1, 1), colour("x")).convert("L"))[0, 0]
    for image in (gray[3], gray[5]):  # a palette of few colours gives others
        assert np.abs(image.astype(int) - value).max() <= 1


def test_an_image_stands_as_its_camera_was_held(tmp_path):
    file = write(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    (tmp_path / "Apple/Fuji_0.png").write_bytes(encode("x", (8, 6), kind="JPEG", exif=exif))
    assert packed(tmp_path / "store", file).sizes[:2].tolist() == [[8, 6], [6, 8]]


def test_the_facts_are_kept_until_the_file_is_touched(tmp_path, cache, monkeypatch):
    file = write(tmp_path, images=False)
    first = Csv(**options(file)).FACTS
    assert not list(cache.glob("csv-*"))  # too fresh: it may change within the clock's tick
    monkeypatch.setattr(csv_module, "FRESH", -1)
    assert first == Csv(**options(file)).FACTS
    assert len(list(cache.glob("csv-*"))) == 1
    monkeypatch.setattr(csv_module, "read_rows", None)  # called, it would fail
    assert first == Csv(**options(file)).FACTS
    assert first | {"revision": 2} == Csv(**options(file, revision=2)).FACTS
    monkeypatch.undo()
    monkeypatch.setenv("DMLBENCH_CACHE", str(cache))
    file.write_text(file.read_text().replace("Fuji,Apple", "Kiku,Apple"))
    assert first != Csv(**options(file)).FACTS


def test_an_unwritable_cache_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_module, "FRESH", -1)
    monkeypatch.setenv("DMLBENCH_CACHE", "/dev/null/cache")
    assert installed.cache_folder() == Path("/dev/null/cache")
    assert Csv(**options(write(tmp_path, images=False))).FACTS["splits"]["train"] == [2, 6]


def test_the_options_reach_the_data_set_that_is_loaded(tmp_path):
    assert load("csv", options(write(tmp_path), channels=1)).FACTS["channels"] == 1
    with pytest.raises(DatasetError, match="file: is missing"):
        load("csv", {"file": ""})


@pytest.mark.skipif(not REAL.is_file(), reason="the real archive is not on this machine")
def test_the_real_grocery_store_is_packed_in_its_time(tmp_path):
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
