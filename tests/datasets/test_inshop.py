"""In-Shop from its files in their real layout."""

import pytest

from dmlbench.datasets import inshop
from dmlbench.utils.errors import DatasetError

LIST, ZIP = "inshop_list_eval_partition.txt", "inshop_img.zip"
ITEMS = {
    "id_00000001": ("WOMEN/Dresses", ["train"] * 3),
    "id_00000002": ("MEN/Denim", ["train"] * 3),
    "id_00000003": ("WOMEN/Dresses", ["query", "gallery", "gallery"]),
    "id_00000004": ("WOMEN/Blouses_Shirts", ["query", "query", "gallery"]),
}


@pytest.fixture
def files(picture, monkeypatch):
    splits = {"train": [2, 6], "test": [2, 6]}
    roles = {"query": 3, "gallery": 3}
    monkeypatch.setattr(inshop, "FACTS", inshop.FACTS | {"splits": splits, "roles": roles})
    members, lines = {}, ["12", "image_name item_id evaluation_status"]
    for item, (category, statuses) in ITEMS.items():
        for view, status in enumerate(statuses):
            path = f"img/{category}/{item}/0{view}_1_front.jpg"
            members[path] = picture(len(members))
            lines.append(f"{path:<70} {item} {status}")
    return {LIST: "\r\n".join(lines).encode(), ZIP: members}


def test_queries_search_the_gallery_and_the_path_gives_two_levels(
    pack_archives, files, query_and_gallery_ids
):
    store = pack_archives("inshop", files)
    queries, gallery = query_and_gallery_ids(store)
    paths = store.index["path"]
    assert {paths[i].rpartition("/")[0][-1] for i in queries} == {"3", "4"}
    assert (len(queries), len(gallery)) == (3, 3)
    assert not set(queries) & set(gallery)
    train = store.split("train")
    assert train.class_names == ["id_00000001", "id_00000002"]
    assert train.parents.tolist() == [[1, 0], [1, 0]]
    assert set(store.index["level_1"]) == {"WOMEN/Dresses", "MEN/Denim", "WOMEN/Blouses_Shirts"}
    assert set(store.index["level_2"]) == {"WOMEN", "MEN"}


def test_a_list_that_windows_rewrote_gives_the_same_store(pack_archives, files):
    official = pack_archives("inshop", files)
    lines = [line + b"  " for line in files[LIST].replace(b"/", b"\\").splitlines()]
    rewritten = b"\xef\xbb\xbf" + b"\r\n".join(lines) + b"\r\n\r\n"
    store = pack_archives("inshop", files | {LIST: rewritten})
    assert store.manifest["content"] == official.manifest["content"]


def test_images_that_are_not_there_are_named_before_any_is_decoded(
    pack_archives, files, decode_nothing
):
    path = "img/WOMEN/Dresses/id_00000003/01_1_front.jpg"
    del files[ZIP][path]
    with pytest.raises(DatasetError) as error:
        pack_archives("inshop", files)
    title, line = str(error.value).splitlines()
    assert title.endswith("inshop_img.zip: 1 image of 12 is not in it, of 1 class:")
    assert line.endswith(f"list_eval_partition.txt, line 10: no {path}, of the class id_00000003")


def test_an_item_in_two_categories_gets_the_first_by_name(pack_archives, files):
    old, new = b"WOMEN/Dresses/id_00000001/02", b"WOMEN/Cardigans/id_00000001/02"
    files[LIST] = files[LIST].replace(old, new)
    files[ZIP] = {path.replace(old.decode(), new.decode()): i for path, i in files[ZIP].items()}
    store = pack_archives("inshop", files)
    in_item = store.index["class_name"] == "id_00000001"
    assert set(store.index["level_1"][in_item]) == {"WOMEN/Cardigans"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"query", b"validation", r"line 9: validation is not train, query or gallery"),
        (b" id_00000001 ", b" id_00000009 ", r"line 3: .* is not img/.*/id_00000009/"),
        (b"img/MEN/", b"MEN/", r"line 6: MEN/Denim/.* is not img/"),
        (b" id_00000001 ", b" ", r"line 3: it has 2 fields, expected 3"),
        (b"12\r\n", b"13\r\n", r"images: found 12, expected 13"),
        (b"12\r\n", b"12 13\r\n", r"line 1: '12 13' is no whole number"),
        (b"12\r\n", b"twelve\r\n", r"line 1: 'twelve' is no whole number"),
        (b"query", b"gallery", r"(?s)query: found 2, expected 3.*gallery: found 4, expected 3"),
        (b"/00_1_front", b"/09_1_front", r"line 3: no img/WOMEN/Dresses/id_00000001/09_1_front"),
    ],
)
def test_a_wrong_line_is_named(pack_archives, files, old, new, message):
    assert old in files[LIST]
    files[LIST] = files[LIST].replace(old, new, 1)
    with pytest.raises(DatasetError, match=message):
        pack_archives("inshop", files)
