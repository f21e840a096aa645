"""CUB-200-2011 from an archive in its real layout."""

import pytest

from dmlbench.datasets import cub200
from dmlbench.utils.errors import DatasetError

CLASSES = ("001.Black_footed_Albatross", "100.Brown_Pelican", "101.White_Pelican", "200.Zaunkönig")


@pytest.fixture
def members(picture, monkeypatch):
    monkeypatch.setitem(cub200.FACTS, "splits", {"train": [2, 18], "test": [2, 18]})
    files = {
        f"CUB_200_2011/images/{name}/{name[4:]}_{number:04}_18.jpg": picture(number)
        for name in CLASSES
        for number in range(9)
    }
    lists = ("images", "classes", "image_class_labels", "train_test_split", "bounding_boxes")
    return {
        "attributes.txt": b"1 has_bill_shape::curved\n",
        **{f"CUB_200_2011/{name}.txt": b"1 1\n" for name in lists},
        "CUB_200_2011/parts/parts.txt": b"1 back\n",
        **files,
    }


def test_the_first_hundred_classes_train_and_the_others_test(
    pack_archives, members, query_and_gallery_ids
):
    store = pack_archives("cub200", {"CUB_200_2011.tgz": members})
    assert store.split("train").class_names == [*CLASSES[:2]]
    assert store.split("test").class_names == [*CLASSES[2:]]
    assert set(store.index["path"]) == {
        name.removeprefix("CUB_200_2011/images/") for name in members if "/images/" in name
    }
    queries, gallery = query_and_gallery_ids(store)
    assert queries == gallery == store.split("test").rows.tolist()


def test_a_file_of_another_layout_is_named(pack_archives, members):
    members["CUB_200_2011/images/readme.txt"] = b"hello"
    with pytest.raises(DatasetError, match=r"CUB_200_2011\.tgz: .*images/readme\.txt is not"):
        pack_archives("cub200", {"CUB_200_2011.tgz": members})


def test_a_missing_image_is_counted(pack_archives, members):
    del members["CUB_200_2011/images/100.Brown_Pelican/Brown_Pelican_0000_18.jpg"]
    with pytest.raises(DatasetError) as error:
        pack_archives("cub200", {"CUB_200_2011.tgz": members})
    assert "train: found 2 classes and 17 images, expected 2 and 18" in str(error.value)
