"""CUB-200-2011 from an archive in its real layout."""

import io
import zipfile

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
    paths = [name.removeprefix("CUB_200_2011/images/") for name in files]
    lines = "".join(f"{number} {path}\r\n" for number, path in enumerate(paths, start=1))
    lists = ("classes", "image_class_labels", "train_test_split", "bounding_boxes")
    return {
        "attributes.txt": b"1 has_bill_shape::curved\n",
        **{f"CUB_200_2011/{name}.txt": b"1 1\n" for name in lists},
        "CUB_200_2011/images.txt": b"\xef\xbb\xbf" + lines.encode(),
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


def test_an_image_that_is_not_there_is_named_before_any_is_decoded(
    pack_archives, members, decode_nothing
):
    path = "images/100.Brown_Pelican/Brown_Pelican_0000_18.jpg"
    del members[f"CUB_200_2011/{path}"]
    with pytest.raises(DatasetError) as error:
        pack_archives("cub200", {"CUB_200_2011.tgz": members})
    title, line = str(error.value).splitlines()
    assert title.endswith("CUB_200_2011.tgz: 1 image of 36 is not in it, of 1 class:")
    assert line.endswith(f"images.txt, line 10: no {path}, of the class 100.Brown_Pelican")


def test_a_zip_under_the_official_name_with_other_folders_gives_the_same_store(
    pack_archives, members
):
    official = pack_archives("cub200", {"CUB_200_2011.tgz": members})
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, file in members.items():
            archive.writestr(
                name.replace("CUB_200_2011", "downloads/birds").replace("jpg", "JPG"), file
            )
    store = pack_archives("cub200", {"CUB_200_2011.tgz": content.getvalue()})
    assert store.manifest["content"] == official.manifest["content"]


def test_an_archive_of_another_layout_is_described(pack_archives, members):
    flat = {name.replace("CUB_200_2011/images/", ""): file for name, file in members.items()}
    del flat["CUB_200_2011/images.txt"]
    with pytest.raises(DatasetError) as error:
        pack_archives("cub200", {"CUB_200_2011.tgz": flat})
    lines = str(error.value).splitlines()
    assert "CUB_200_2011.tgz: it has another layout than" in lines[0]
    assert lines[0].endswith("there is no images.txt.")
    assert "CUB_200_2011/ with images.txt and images/<number>.<species>/<image>.jpg" in lines[1]
    assert "found     001.Black_footed_Albatross/ (9 files), 100.Brown_Pelican/ (9 fi" in lines[2]


def test_files_that_the_list_does_not_name_are_left_out(pack_archives, members, capsys):
    official = pack_archives("cub200", {"CUB_200_2011.tgz": members})
    folder = "CUB_200_2011/images/001.Black_footed_Albatross"
    stray = {f"{folder}/mine.jpg": b"no image", f"{folder}/Thumbs.db": b"x"}
    store = pack_archives("cub200", {"CUB_200_2011.tgz": members | stray})
    assert store.manifest["content"] == official.manifest["content"]
    assert f"1 image left out, not listed: {folder}/mine.jpg\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"10 100.Brown", b"10 Brown", r"images\.txt, line 10: .* is not <number>\.<species>/"),
        (b"10 100.Brown", b"100.Brown", r"images\.txt, line 10: it has 1 field, expected 2"),
        (b"_0001_18", b"_0000_18", r"images\.txt, line 2: .* is listed twice, first .* line 1"),
        (b"10 100.Brown", b"10 101.Brown", r"train: images: found 17, expected 18"),
    ],
)
def test_a_wrong_line_of_the_list_is_named(pack_archives, members, old, new, message):
    name = "CUB_200_2011/images.txt"
    assert old in members[name]
    members[name] = members[name].replace(old, new, 1)
    with pytest.raises(DatasetError, match=message):
        pack_archives("cub200", {"CUB_200_2011.tgz": members})
