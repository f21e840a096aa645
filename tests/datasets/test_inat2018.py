"""iNaturalist 2018, the split of Smooth-AP, from archives in their real layout."""

import json

import pytest

from dmlbench.datasets import inat2018
from dmlbench.utils.errors import DatasetError

ANNOTATIONS, LISTS, IMAGES = (
    "train2018.json.tar.gz",
    "Inat_dataset_splits.zip",
    "train_val2018.tar.gz",
)
TRAIN = "Inat_dataset_splits/Inaturalist_train_set1.txt"
CATEGORIES = [
    {
        "id": number,
        "name": str(number),
        "supercategory": "Aves",
        "genus": f"genus {number // 2}",
        "family": f"family {number // 2}",
        "order": f"order {number // 4}",
        "class": "Aves",
        "phylum": "Chordata",
        "kingdom": "Animalia",
    }
    for number in range(8)
]


@pytest.fixture
def files(picture, monkeypatch):
    splits = {"train": [6, 18], "test": [2, 6]}
    counts = {"train_super_classes": [3, 3, 2, 1, 1, 1]}
    monkeypatch.setattr(inat2018, "FACTS", inat2018.FACTS | {"splits": splits} | counts)
    lists = {"train": [], "test": []}
    images = {}
    for number in range(8):
        for image in range(3):
            path = f"train_val2018/Aves/{number}/{number}f{image}.jpg"
            images[path] = picture(len(images))
            lists["train" if number < 6 else "test"].append(path)
    images["train_val2018/Aves/0/of-no-split.jpg"] = picture(0)
    document = {"info": {}, "images": [{"id": 1}], "categories": CATEGORIES, "annotations": []}
    return {
        ANNOTATIONS: {"train2018.json": json.dumps(document).encode()},
        LISTS: {
            f"Inat_dataset_splits/Inaturalist_{split}_set1.txt": ("\n".join(lines) + "\n").encode()
            for split, lines in lists.items()
        },
        IMAGES: images,
    }


def test_the_lists_give_the_split_and_species_have_six_levels(pack_archives, files):
    store = pack_archives("inat2018", files)
    train, test = store.split("train"), store.split("test")
    assert train.class_names == [f"Aves/{number}" for number in range(6)]
    assert test.class_names == ["Aves/6", "Aves/7"]
    genus, family, order, class_, phylum, kingdom = train.parents.tolist()
    assert genus == family == [0, 0, 1, 1, 2, 2]
    assert order == [0, 0, 0, 0, 1, 1]
    assert class_ == phylum == kingdom == [0] * 6
    assert "train_val2018/Aves/0/of-no-split.jpg" not in store.index["path"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"Aves/3/3f1", b"Aves/9/3f1", r"Inaturalist_train_set1\.txt, line 11: .* is not"),
        (b"train_val2018/Aves/0/0f0", b"Aves/0/0f0", r"set1\.txt, line 1: Aves/0/0f0\.jpg is not"),
        (b"Aves/3/3f1", b"Aves/3/3f9", r"set1\.txt, line 11: no train_val2018/Aves/3/3f9\.jpg"),
        (b"Aves/3/3f1", b"Aves/3/3f0", r"set1\.txt, line 11: .* is listed twice"),
        (b"0f0.jpg", b"0f0.jpg 0", r"set1\.txt, line 1: it has 2 fields, expected 1"),
        (b"train_val2018/Aves/3/3f1.jpg\n", b"", r"train: images: found 17, expected 18"),
    ],
)
def test_a_wrong_line_is_named(pack_archives, files, old, new, message):
    assert old in files[LISTS][TRAIN]
    files[LISTS][TRAIN] = files[LISTS][TRAIN].replace(old, new, 1)
    with pytest.raises(DatasetError, match=message):
        pack_archives("inat2018", files)


def test_a_different_taxonomy_names_the_level_that_differs(pack_archives, files):
    wrong = [category | {"genus": "one"} for category in CATEGORIES]
    files[ANNOTATIONS] = {"train2018.json": json.dumps({"categories": wrong}).encode()}
    with pytest.raises(DatasetError, match="genus: found 1, expected 3") as error:
        pack_archives("inat2018", files)
    assert "family" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [b"\xff", b"{}", b'{"categories": [', b'{"categories": [{"id": 3}]}', b'{"categories": [3]}'],
)
def test_annotations_without_a_taxonomy_are_refused(pack_archives, files, content):
    files[ANNOTATIONS] = {"train2018.json": content}
    with pytest.raises(DatasetError, match=r"train2018\.json: its categories cannot be read"):
        pack_archives("inat2018", files)


def test_a_missing_list_of_the_split_is_named(pack_archives, files):
    del files[LISTS][TRAIN]
    with pytest.raises(DatasetError, match=r"Inaturalist_train_set1\.txt"):
        pack_archives("inat2018", files)
