"""Cars196 from archives in both of the layouts that people have."""

import io

import numpy as np
import pytest
from scipy.io import savemat

from dmlbench.datasets import cars196
from dmlbench.datasets.archives.fetching import fetch
from dmlbench.utils.errors import DatasetError

NAMES = [f"Make Model {number:03} 2012" for number in range(1, 197)]
NAMES[173] = "Ram C/V Cargo Van Minivan 2012"
MIRROR = "stanford-car-dataset-by-classes-folder.zip"
CLASSES = (1, 98, 99, 174)


@pytest.fixture(autouse=True)
def small_splits(monkeypatch):
    monkeypatch.setitem(cars196.FACTS, "splits", {"train": [2, 10], "test": [2, 10]})


def annotations(classes, names=NAMES):
    fields = ["relative_im_path", *(f"bbox_{c}" for c in ("x1", "y1", "x2", "y2")), "class", "test"]
    rows = np.zeros((1, len(classes)), dtype=[(name, object) for name in fields])
    for place, number in enumerate(classes):
        box = [np.uint16(v) for v in (1, 2, 30, 40)]
        values = (f"car_ims/{place + 1:06}.jpg", *box, np.uint8(number), np.uint8(place % 2))
        rows[0, place] = values
    file = io.BytesIO()
    savemat(file, {"annotations": rows, "class_names": np.array([names], dtype=object)})
    return file.getvalue()


@pytest.fixture
def original(picture):
    classes = [number for number in CLASSES for _ in range(5)]
    images = {f"car_ims/{place + 1:06}.jpg": picture(place) for place in range(20)}
    return {"car_ims.tgz": images, "cars_annos.mat": annotations(classes)}


@pytest.fixture
def mirror(picture):
    files, lines = {}, {"train": [], "test": []}
    for place, number in enumerate(number for number in CLASSES for _ in range(5)):
        split = ("train", "test")[place % 2]
        file = f"{place // 2 + 1:05}.jpg"  # the same names in both
        folder = NAMES[number - 1].replace("/", "-")
        files[f"car_data/car_data/{split}/{folder}/{file}"] = picture(place)
        lines[split].append(f"{file},39,116,569,375,{number}\n")
    texts = {f"anno_{split}.csv": "".join(rows).encode() for split, rows in lines.items()}
    return {"names.csv": "\n".join(NAMES).encode(), **texts, **files}


def test_the_original_layout_is_split_by_class_number_and_not_by_its_own_test_column(
    pack_archives, original
):
    store = pack_archives("cars196", original)
    assert store.split("train").class_names == [NAMES[0], NAMES[97]]
    assert store.split("test").class_names == [NAMES[98], NAMES[173]]
    assert set(store.index["path"]) == set(original["car_ims.tgz"])


def test_the_mirror_by_class_folders_gives_the_same_classes_and_split(
    pack_archives, original, mirror
):
    stores = [pack_archives("cars196", files) for files in (original, {MIRROR: mirror})]
    for split in ("train", "test"):
        first, second = (store.split(split) for store in stores)
        assert first.class_names == second.class_names
        assert np.array_equal(np.bincount(first.labels), np.bincount(second.labels))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("anno_test.csv", b",98\n", b",197\n", r"anno_test\.csv, line 3: 197 is not in 1 \.\. 196"),
        ("anno_test.csv", b",98\n", b",x\n", r"anno_test\.csv, line 3: 'x' is no whole number"),
        ("anno_train.csv", b"00001.jpg,", b"", r"anno_train\.csv, line 1: it has 5 fields"),
        ("anno_train.csv", b"00002.jpg", b"00099.jpg", r"line 2: no train/.*/00099\.jpg"),
        ("anno_train.csv", b"00002.jpg", b"00001.jpg", r"line 2: .* is listed twice"),
    ],
)
def test_a_wrong_line_of_the_mirror_is_named(pack_archives, mirror, file, old, new, message):
    assert old in mirror[file]
    mirror[file] = mirror[file].replace(old, new, 1)
    with pytest.raises(DatasetError, match=message):
        pack_archives("cars196", {MIRROR: mirror})


def test_nobody_is_sent_to_the_authors_pages_which_are_gone(tmp_path):
    for name in ("car_ims.tgz", "cars_annos.mat"):
        (tmp_path / name).write_bytes(b"a damaged download")
    with pytest.raises(DatasetError) as error:
        fetch(cars196.SOURCES, tmp_path, {})
    assert "car_ims.tgz: wrong checksum" in str(error.value)
    assert "The authors' pages are gone" in str(error.value)
    assert "http" not in str(error.value)


def test_a_file_that_is_not_the_annotations_is_refused(pack_archives, original):
    valid = annotations([1, 2])
    for content in (b"no MATLAB file at all", b"", valid[:900], annotations([1, 2], names=[])):
        with pytest.raises(DatasetError, match=r"cars_annos\.mat"):
            pack_archives("cars196", original | {"cars_annos.mat": content})


def test_a_missing_annotation_changes_the_count_and_a_missing_image_is_named(
    pack_archives, original
):
    classes = [number for number in CLASSES for _ in range(5)]
    with pytest.raises(DatasetError, match="test: images: found 9, expected 10"):
        pack_archives("cars196", original | {"cars_annos.mat": annotations(classes[:-1])})
    del original["car_ims.tgz"]["car_ims/000007.jpg"]
    with pytest.raises(DatasetError, match=r"annotation 7: no car_ims/000007\.jpg"):
        pack_archives("cars196", original)
