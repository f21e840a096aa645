"""VehicleID from a zip in its real layout."""

from collections import Counter

import pytest

from dmlbench.datasets import vehicleid
from dmlbench.utils.errors import DatasetError

ZIP, ROOT = "VehicleID_V1.0.zip", "VehicleID_V1.0"
LISTS = {
    "train_list": [1, 2],
    "test_list_800": [5, 6],
    "test_list_1600": [6, 7, 8],
    "test_list_2400": [5, 6, 7, 8],
}
IMAGES = 5
DRAWN = [["0000054", "0000063"], ["0000054", "0000064"], ["0000050", "0000063"]]


@pytest.fixture
def members(picture, monkeypatch):
    counts = {"train": 2, "small": 2, "medium": 3, "large": 4}
    monkeypatch.setattr(vehicleid, "FACTS", vehicleid.FACTS | {"vehicles": counts})
    files = {
        f"{ROOT}/train_test_split/{name}.txt": "".join(
            f"{10 * vehicle + image:07} {vehicle}\n" for vehicle in vehicles for image in range(5)
        ).encode()
        for name, vehicles in LISTS.items()
    }
    vehicles = [1, 2, 3, 5, 6, 7, 8]
    return {
        **files,
        f"{ROOT}/attribute/img2vid.txt": b"0000010 1\n",
        **{
            f"{ROOT}/image/{10 * vehicle + image:07}.jpg": picture(10 * vehicle + image)
            for vehicle in vehicles
            for image in range(IMAGES)
        },
    }


def test_the_lists_give_the_split_and_unlisted_images_are_left_out(pack_archives, members):
    store = pack_archives("vehicleid", {ZIP: members})
    assert store.split("train").class_names == ["00001", "00002"]
    assert store.split("test").class_names == ["00005", "00006", "00007", "00008"]
    assert len(store) == 30


@pytest.mark.parametrize(("test", "vehicles"), [("small", 2), ("medium", 3), ("large", 4)])
def test_each_repetition_draws_one_image_of_each_vehicle_for_the_gallery(
    pack_archives, members, query_and_gallery_ids, test, vehicles
):
    store = pack_archives("vehicleid", {ZIP: members})
    label, galleries = store.index["label"], []
    for repetition in range(10):
        queries, gallery = query_and_gallery_ids(store, test, repetition)
        assert Counter(Counter(label[gallery].tolist()).values()) == {1: vehicles}
        assert set(Counter(label[queries].tolist()).values()) == {IMAGES - 1}
        assert not set(queries) & set(gallery)
        galleries.append(tuple(store.index["path"][gallery]))
    assert len(set(galleries)) > 5
    assert query_and_gallery_ids(store, test, 10) == ([], [])


def test_the_draw_is_the_same_on_every_machine(pack_archives, members, query_and_gallery_ids):
    store = pack_archives("vehicleid", {ZIP: members})
    drawn = [
        store.index["path"][query_and_gallery_ids(store, "small", r)[1]].tolist() for r in range(3)
    ]
    assert [[path[-11:-4] for path in paths] for paths in drawn] == DRAWN


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("train_list", b"0000010 1", b"0000010", r"train_list\.txt, line 1: it has 1 field"),
        ("train_list", b"0000010 1", b"0000010 car", r"line 1: 'car' is no whole number"),
        ("train_list", b"0000010 1", b"0000099 1", r"line 1: no image/0000099\.jpg"),
        ("train_list", b"0000010 1", b"0000011 1", r"line 2: .* is listed twice"),
        ("train_list", b"0000010 1", b"0000050 1", r"line 1: .*0000050\.jpg is in .*train_list"),
        ("train_list", b"0000010 1", b"0000010 9", r"train: vehicles: found 3, expected 2"),
        ("test_list_1600", b"0000060 6", b"0000060 9", r"medium: vehicles: found 4, expected 3"),
    ],
)
def test_a_wrong_line_is_named(pack_archives, members, name, old, new, message):
    file = f"{ROOT}/train_test_split/{name}.txt"
    assert old in members[file]
    members[file] = members[file].replace(old, new, 1)
    with pytest.raises(DatasetError, match=message):
        pack_archives("vehicleid", {ZIP: members})


def test_a_missing_list_is_named(pack_archives, members):
    del members[f"{ROOT}/train_test_split/test_list_1600.txt"]
    with pytest.raises(DatasetError, match=r"test_list_1600\.txt"):
        pack_archives("vehicleid", {ZIP: members})
