"""Stanford Online Products from an archive in its real layout."""

import pytest
import torch

from dmlbench.datasets import sop
from dmlbench.losses import create_loss
from dmlbench.utils.errors import DatasetError

ZIP, ROOT = "Stanford_Online_Products.zip", "Stanford_Online_Products"
HEAD = "image_id class_id super_class_id path\n"


@pytest.fixture
def members(picture, monkeypatch):
    splits = {"train": [4, 12], "test": [4, 12]}
    monkeypatch.setattr(sop, "FACTS", sop.FACTS | {"splits": splits, "super_classes": 2})
    files, lines, image = {}, {"train": [], "test": []}, 0
    for product in range(1, 9):
        split, kind = ("train" if product <= 4 else "test"), ("bicycle", "chair")[product % 2]
        for view in range(3):
            image += 1
            path = f"{kind}_final/1110{product:08}_{view}.JPG"
            files[f"{ROOT}/{path}"] = picture(image)
            lines[split].append(f"{image} {product} {product % 2 + 1} {path}\n")
    texts = {
        f"{ROOT}/Ebay_{split}.txt": (HEAD + "".join(rows)).encode() for split, rows in lines.items()
    }
    return {f"{ROOT}/Ebay_info.txt": HEAD.encode(), **texts, **files}


def test_the_authors_lists_give_the_split_and_folders_are_super_classes(pack_archives, members):
    store = pack_archives("sop", {ZIP: members})
    train, test = store.split("train"), store.split("test")
    assert train.class_names == ["00001", "00002", "00003", "00004"]
    assert test.class_names == ["00005", "00006", "00007", "00008"]
    assert train.parents.tolist() == [[1, 0, 1, 0]]
    assert set(store.index["level_1"]) == {"bicycle", "chair"}


def test_kinds_of_product_can_be_the_groups_of_the_hierarchical_proxy_loss(pack_archives, members):
    parents = torch.from_numpy(pack_archives("sop", {ZIP: members}).split("train").parents)
    loss = create_loss("hpl", 4, 2, parents, hierarchy="given", warmup_epochs=0)
    loss.refresh(pytest.fail)
    assert loss.artefact() == {"parents": [[1, 0, 1, 0]]}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"1 1 2 chair", b"1 one 2 chair", r"Ebay_train\.txt, line 2: 'one' is no whole number"),
        (b"1 1 2 chair_final/", b"1 1 2 ", r"Ebay_train\.txt, line 2: .* is not <kind of product>"),
        (b"2 1 2 chair", b"2 1 2 chair x", r"Ebay_train\.txt, line 3: it has 5 fields, expected 4"),
        (b"_2.JPG", b"_1.JPG", r"Ebay_train\.txt, line 4: .* is listed twice, first .*line 3"),
        (b"_2.JPG", b"_9.JPG", r"Ebay_train\.txt, line 4: no .*_9\.JPG"),
        (b"1 1 2 chair", b"\xff 1 2 chair", r"Ebay_train\.txt, line 2: this is not UTF-8"),
        (b"chair", b"stool", r"super-classes: found 3, expected 2"),
        (b" 4 1 ", b" 3 1 ", r"train: classes: found 3, expected 4"),
    ],
)
def test_a_wrong_line_is_named(pack_archives, members, old, new, message):
    name = f"{ROOT}/Ebay_train.txt"
    count = -1 if old == b" 4 1 " else 1
    assert old in members[name]
    members[name] = members[name].replace(old, new, count)
    with pytest.raises(DatasetError, match=message):
        pack_archives("sop", {ZIP: members})


def test_an_empty_or_missing_list_is_named(pack_archives, members):
    name = f"{ROOT}/Ebay_test.txt"
    members[name] = HEAD.encode()
    with pytest.raises(DatasetError, match=r"Ebay_test\.txt, line 2: the table ends before"):
        pack_archives("sop", {ZIP: members})
    del members[name]
    with pytest.raises(DatasetError, match=r"Ebay_test\.txt"):
        pack_archives("sop", {ZIP: members})


def test_a_list_with_missing_products_is_refused_with_the_counts_that_differ(
    pack_archives, members
):
    name = f"{ROOT}/Ebay_test.txt"
    members[name] = b"".join(members[name].splitlines(keepends=True)[:-3])
    with pytest.raises(DatasetError) as error:
        pack_archives("sop", {ZIP: members})
    assert "test: classes: found 3, expected 4" in str(error.value)
    assert "test: images: found 9, expected 12" in str(error.value)
    assert "train:" not in str(error.value)
