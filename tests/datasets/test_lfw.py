"""LFW from its archive and its pairs in their real layout."""

import pytest

from dmlbench.datasets import lfw
from dmlbench.utils.errors import DatasetError

PEOPLE = {"Aaron_Eckhart": 1, "Abel_Pacheco": 4, "Zoë_Ball": 3, "Ariel_Sharon": 2}
PAIRS = """2\t2
Abel_Pacheco\t1\t4
Ariel_Sharon\t1\t2
Aaron_Eckhart\t1\tAbel_Pacheco\t2
Zoë_Ball\t3\tAbel_Pacheco\t2
Zoë_Ball\t1\t2
Abel_Pacheco\t2\t3
Ariel_Sharon\t1\tAbel_Pacheco\t1
Aaron_Eckhart\t1\tZoë_Ball\t2
"""


@pytest.fixture
def files(picture, monkeypatch):
    monkeypatch.setattr(lfw, "FACTS", lfw.FACTS | {"splits": {"test": [4, 10]}, "pairs": [2, 2]})
    images = {
        f"lfw/{person}/{person}_{number:04}.jpg": picture(number)
        for person, count in PEOPLE.items()
        for number in range(1, count + 1)
    }
    return {"lfw.tgz": images, "lfw_pairs.txt": PAIRS.encode()}


def test_all_people_are_test_classes_and_no_image_is_a_query(pack_archives, files):
    store = pack_archives("lfw", files)
    assert store.split("test").class_names == sorted(PEOPLE)
    assert len(store.protocols["id"]) == 0
    with pytest.raises(DatasetError, match="no images in the split 'train'"):
        store.split("train")


def test_the_pairs_are_the_images_that_the_lines_name(pack_archives, files):
    store = pack_archives("lfw", files)
    path, pairs = store.index["path"], store.pairs
    named = [
        (path[first].rpartition("/")[2], path[second].rpartition("/")[2])
        for first, second in zip(pairs["first"], pairs["second"], strict=True)
    ]
    assert named[0] == ("Abel_Pacheco_0001.jpg", "Abel_Pacheco_0004.jpg")
    assert named[3] == ("Zoë_Ball_0003.jpg", "Abel_Pacheco_0002.jpg")
    assert pairs["same"].tolist() == [True, True, False, False] * 2
    assert pairs["fold"].tolist() == [0] * 4 + [1] * 4
    label = store.index["label"]
    assert ((label[pairs["first"]] == label[pairs["second"]]) == pairs["same"]).all()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2\t2\n", "10\t300\n", r"line 1: found '10 300', expected '2 2'"),
        ("Abel_Pacheco\t1\t4", "Abel_Pacheco\t1\t5", r"line 2: there is no image .*_0005\.jpg"),
        ("Abel_Pacheco\t1\t4", "Abel_Pacheco\tx\t4", r"line 2: 'x' is no whole number"),
        ("Abel_Pacheco\t1\t4", "Abel_Pacheco\t1", r"line 2: 'Abel_Pacheco 1' is not <person>"),
        ("Aaron_Eckhart\t1\tAbel", "Abel", r"line 4: 'Abel_Pacheco 2' is not two of"),
        ("Aaron_Eckhart\t1\tZoë_Ball\t2\n", "", r"pairs: found 7, expected 8"),
    ],
)
def test_a_wrong_line_is_named(pack_archives, files, old, new, message):
    assert old in PAIRS
    files["lfw_pairs.txt"] = PAIRS.replace(old, new, 1).encode()
    with pytest.raises(DatasetError, match=message):
        pack_archives("lfw", files)


def test_a_file_of_another_layout_and_a_missing_image_are_named(
    pack_archives, files, decode_nothing
):
    funneled = {"lfw_funneled/Abel_Pacheco/Abel_Pacheco_0001.jpg": b""}
    with pytest.raises(
        DatasetError, match=r"(?s)expected  lfw/<person>.*found     lfw_funneled/Abel_Pacheco/"
    ):
        pack_archives("lfw", files | {"lfw.tgz": funneled})
    images = files["lfw.tgz"]
    del images["lfw/Abel_Pacheco/Abel_Pacheco_0003.jpg"]
    with pytest.raises(DatasetError) as error:
        pack_archives("lfw", files)
    assert str(error.value).splitlines()[1:] == [
        "    test: images: found 9, expected 10",
        "    lfw/Abel_Pacheco/Abel_Pacheco_0003.jpg is missing",
    ]


def test_a_wrong_pair_is_found_before_any_image_is_decoded(pack_archives, files, decode_nothing):
    files["lfw_pairs.txt"] = PAIRS.replace("Ball\t3", "Ball\t4").encode()
    with pytest.raises(DatasetError, match=r"line 5: there is no image lfw/Zoë_Ball/.*_0004"):
        pack_archives("lfw", files)
