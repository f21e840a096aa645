"""A folder for each class, in the forms that people have."""

import io
import json
import os
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from dmlbench.datasets.csv import Csv
from dmlbench.datasets.folder import ImageFolder
from dmlbench.datasets.store.pack import pack
from dmlbench.datasets.store.reader import Store
from dmlbench.utils.errors import DatasetError


def encode(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (9, 8), shade).save(file, "PNG")
    return file.getvalue()


def two(*folders: str) -> list[str]:
    """Two images in each folder."""
    return [f"{folder}/{number}.png" for folder in folders for number in (1, 2)]


def make(folder: Path, names: list[str]) -> str:
    """Write `names`, each with another image; a name that ends with "/" is a folder."""
    for number, name in enumerate(names):
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(number % 256))
    return str(folder)


def make_zip(path: Path, names: list[str]) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, b"" if name.endswith("/") else encode(number % 256))
    return str(path)


def splits(dataset: ImageFolder) -> dict[str, str]:
    """{class: split}."""
    return {row.class_name: row.split for row in dataset.rows}


def test_without_train_and_test_half_of_the_classes_train_as_with_a_csv(tmp_path):
    names = two("a", "b", "c", "d")
    folder = make(tmp_path / "images", names)
    (tmp_path / "images.csv").write_text(
        "\n".join(["path,label", *(f"images/{name},{name[0]}" for name in names)])
    )
    dataset = ImageFolder(folder=folder, split_seed=3)
    table = Csv(file=str(tmp_path / "images.csv"), split_seed=3)
    assert dataset.FACTS["splits"] == {"train": [2, 4], "test": [2, 4]}
    assert splits(dataset) == {row.class_name: row.split for row in table.rows}
    assert [row.path for row in dataset.rows] == names
    assert splits(ImageFolder(folder=folder, split_seed=0)) != splits(dataset)


def test_folders_train_and_test_are_the_split(tmp_path):
    folder = make(tmp_path / "images", two("train/b", "train/c", "test/a"))
    dataset = ImageFolder(folder=folder)
    assert splits(dataset) == {"a": "test", "b": "train", "c": "train"}
    assert dataset.rows[0].path == "test/a/1.png"


@pytest.mark.parametrize("test", ["test", "Test", "val", "validation", "valid", "dev", "testing"])
def test_beside_train_another_part_is_the_test(tmp_path, test):
    folder = make(tmp_path / "images", two("train/a", f"{test}/b"))
    assert splits(ImageFolder(folder=folder)) == {"a": "train", "b": "test"}


@pytest.mark.parametrize("test", ["test", "query"])
def test_val_beside_train_and_test_is_the_validation_part(tmp_path, test):
    others = [] if test == "test" else two("gallery/b")
    folder = make(tmp_path / "images", [*two("train/a", f"{test}/b", "val/c"), *others])
    dataset = ImageFolder(folder=folder)
    assert splits(dataset) == {"a": "train", "b": "test", "c": "validation"}
    assert dataset.FACTS["splits"] == {
        "train": [1, 2],
        "test": [1, 2 + len(others)],
        "validation": [1, 2],
    }
    assert set(splits(ImageFolder(folder=folder, ignore=("val",)))) == {"a", "b"}
    assert set(splits(ImageFolder(folder=folder, split="classes"))) == {"a", "b", "c"}


@pytest.mark.parametrize("other", ["train", "test"])
def test_a_validation_part_that_shares_classes_needs_a_decision(tmp_path, other):
    folder = make(tmp_path / "images", two("train/a", "test/b", f"{other}/c", "val/c"))
    message = "1 of 3 classes in .*val.*, as c\\. A validation needs .* name it under `ignore`, or"
    with pytest.raises(DatasetError, match=message):
        ImageFolder(folder=folder).check()
    assert set(splits(ImageFolder(folder=folder, ignore=("val",)))) == {"a", "b", "c"}


def test_a_class_in_train_and_in_test_is_refused_unless_classes_are_split(tmp_path):
    folder = make(tmp_path / "images", two("train/a", "train/b", "test/a", "test/c"))
    with pytest.raises(DatasetError) as error:
        ImageFolder(folder=folder).check()
    assert "1 of 3 classes in train and in test, as a. No test class may be" in str(error.value)
    dataset = ImageFolder(folder=folder, split="classes")
    assert dataset.FACTS["splits"]["train"][0] + dataset.FACTS["splits"]["test"][0] == 3
    assert len([row for row in dataset.rows if row.class_name == "a"]) == 4


def test_query_and_gallery_are_parts_of_the_test(tmp_path):
    folder = make(tmp_path / "images", two("train/a", "query/b", "gallery/b"))
    rows = ImageFolder(folder=folder).rows
    assert {(row.path.split("/")[0], row.split, row.role) for row in rows} == {
        ("train", "train", "both"),
        ("query", "test", "query"),
        ("gallery", "test", "gallery"),
    }
    with pytest.raises(DatasetError, match="images with role query, and none with gallery"):
        ImageFolder(folder=make(tmp_path / "b", two("train/a", "query/b"))).check()


def test_levels_name_the_folders_above_the_classes_the_nearest_first(tmp_path):
    names = two("Birds/Gulls/ivory", "Birds/Gulls/herring", "Birds/Terns/black", "Fish/Eels/black")
    dataset = ImageFolder(folder=make(tmp_path / "images", names), levels=("genus", "order"))
    assert dataset.FACTS["levels"] == ["genus", "order"]
    by_class = {row.class_name: row.levels for row in dataset.rows}
    assert by_class["Birds/Gulls/ivory"] == ("Birds/Gulls", "Birds")
    assert len(by_class) == 4  # black terns are no black eels
    drawn = splits(dataset)
    assert drawn["Birds/Gulls/ivory"] != drawn["Birds/Gulls/herring"]


@pytest.mark.parametrize(
    ("names", "levels", "message"),
    [
        (two("Fish/eel", "Birds/tern"), (), r"at <class>/<image>, and 4 of 4 are not.*too deep"),
        (two("a", "b"), ("kind",), r"at <kind>/<class>/<image>, and 4 of 4 are not.*too high: a/1"),
        (
            two("my-query/a", "test_set/b", "train_set/b", "Gallery/a"),
            (),
            "rename my-query to query, test_set to test, train_set to train.$",
        ),
        (two("train_set/a", "station/b"), (), r"too deep: train_set/a/2\.png$"),
        ([*two("a", "b"), "1.png"], (), r"and 1 of 5 are not.*\n +too high: 1\.png$"),
        ([*two("a", "b"), "b/new/1.png"], (), r"and 1 of 5 are not.*\n +too deep: b/new/1\.png$"),
        (["train/1.png", "test/2.png"], (), r"at <train or test>/<class>/<image>, and 2 of 2 are"),
        (two("train/a", "test/b", "more/c"), (), r"beside test, train there is more: name it"),
        ([*two("a", "b"), "c/1.png"], (), r"class 'c' has only one image, c/1\.png; a class needs"),
        (two("a"), (), "it has 1 class, and none of them is in the split test"),
        (["a/notes.txt", "b/notes.TXT", "c/x"], (), r"no images in .*: 3 files left out, not im.*"),
        (["a/"], (), "no images in .*: 1 folder without files: a"),
        ([], (), "no images in .*: it is empty"),
    ],
)
def test_one_message_says_what_is_expected_and_what_there_is(tmp_path, names, levels, message):
    folder = tmp_path / "images"
    folder.mkdir()
    dataset = ImageFolder(folder=make(folder, names), levels=levels)
    with pytest.raises(DatasetError, match=f"(?s){message}"):
        dataset.check()


def test_a_part_alone_is_no_split(tmp_path):
    folder = make(tmp_path / "images", [*two("train/a", "train/b"), "test/"])
    dataset = ImageFolder(folder=folder)
    assert dataset.FACTS["splits"] == {"train": [1, 2], "test": [1, 2]}
    assert dataset.rows[0].path == "a/1.png"


def test_all_wrong_classes_are_named_together(tmp_path):
    names = ["a/1.png", "b/1.png", *two("c", "d")]
    with pytest.raises(DatasetError, match=r"(?s)2 problems:.*class 'a'.*class 'b'"):
        ImageFolder(folder=make(tmp_path / "images", names)).check()


@pytest.mark.parametrize("wrapper", ["", "photos/", "my data/photos/"])
def test_a_folder_around_all_others_does_not_matter_in_a_folder_or_a_zip(tmp_path, wrapper):
    names = two("train/Fish/eel", "train/Birds/tern", "test/Fish/cod", "test/Birds/gull")
    plain = ImageFolder(folder=make(tmp_path / "plain", names), levels=("kind",))
    inner = [wrapper + name for name in names]
    for place in (make(tmp_path / "w", inner), make_zip(tmp_path / "w.zip", inner)):
        assert ImageFolder(folder=place, levels=("kind",)).FACTS == plain.FACTS


def test_what_systems_leave_in_folders_is_no_image_and_no_class(tmp_path, capsys):
    extras = [
        *(".DS_Store", "a/.DS_Store", "a/Thumbs.db", "a/desktop.ini", "a/._1.png", ".git/x/1.png"),
        *("__MACOSX/a/._1.png", ".ipynb_checkpoints/1.png", "a/.hidden.png"),
    ]
    plain = ImageFolder(folder=make(tmp_path / "plain", two("a", "b")))
    for place in (
        make(tmp_path / "more", [*two("a", "b"), *extras]),
        make_zip(tmp_path / "more.zip", [*two("a", "b"), *extras]),
    ):
        dataset = ImageFolder(folder=place)
        assert dataset.FACTS == plain.FACTS
        assert len([*dataset.images({})]) == 4
        assert capsys.readouterr().out == ""


def test_other_files_are_left_out_and_counted_when_images_are_packed(tmp_path, capsys):
    names = [*two("a", "b"), "labels.csv", "a/1.txt", "b/2.TXT", "c/", "README"]
    dataset = ImageFolder(folder=make(tmp_path / "images", names))
    assert len([*dataset.images({})]) == 4
    out = capsys.readouterr().out
    assert "4 files left out, not images: 2 .txt, 1 .csv, 1 no suffix" in out.replace(
        "1 no suffix, 1 .csv", "1 .csv, 1 no suffix"
    )
    assert "1 folder without files: c" in out


@pytest.mark.parametrize("pattern", ["b", "b/2.png", "*/2.png", "2.*"])
def test_ignore_leaves_out_names_and_patterns(tmp_path, pattern):
    names = [*two("a", "c"), "a/3.png", "c/3.png", "b/2.png"]
    paths = {
        row.path
        for row in ImageFolder(folder=make(tmp_path / "images", names), ignore=(pattern,)).rows
    }
    assert "b/2.png" not in paths
    assert ("a/2.png" in paths) == (pattern in ("b", "b/2.png"))


def test_a_name_under_ignore_that_fits_nothing_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"ignore: nothing in .* is named vall, \*\.gif\."):
        ImageFolder(
            folder=make(tmp_path / "images", two("a", "b")), ignore=("vall", "*.gif")
        ).check()


def test_two_spellings_of_a_class_are_one_class(tmp_path):
    names = ["\u00e9/1.png", "e\u0301/2.png", *two("b")]
    rows = ImageFolder(folder=make(tmp_path / "images", names)).rows
    assert [row.class_name for row in rows] == ["b", "b", "\u00e9", "\u00e9"]
    assert len([*ImageFolder(folder=str(tmp_path / "images")).images({})]) == 4
    make(tmp_path / "images", ["e\u0301/1.png"])
    with pytest.raises(DatasetError, match=r"differ only in their spelling:\n +\u00e9/1\.png"):
        ImageFolder(folder=str(tmp_path / "images")).check()


def test_links_to_folders_are_followed_and_loops_are_refused(tmp_path):
    make(tmp_path / "real", two("a"))
    folder = make(tmp_path / "images", two("b"))
    (tmp_path / "images/a").symlink_to(tmp_path / "real/a")
    assert set(splits(ImageFolder(folder=folder))) == {"a", "b"}
    (tmp_path / "images/b/loop").symlink_to(tmp_path / "images")
    with pytest.raises(DatasetError, match=r"images/b/loop is a link to a folder"):
        ImageFolder(folder=folder).check()


def test_a_name_that_is_no_text_is_refused(tmp_path):
    folder = make(tmp_path / "images", two("a", "b"))
    Path(folder, "a/1.png").rename(Path(folder, os.fsdecode(b"a/\xff.png")))
    with pytest.raises(DatasetError, match=r"a/\\xff\.png: this name is not UTF-8"):
        ImageFolder(folder=folder).check()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "folder: .*nothing is not there"),
        ("file.png", "folder: .*file.png is neither a folder nor a .zip"),
        ("broken.zip", "broken.zip: cannot read this zip"),
    ],
)
def test_what_is_no_folder_is_named(tmp_path, name, message):
    for file in ("file.png", "broken.zip"):
        (tmp_path / file).write_bytes(b"PK no zip")
    with pytest.raises(DatasetError, match=message):
        _ = ImageFolder(folder=str(tmp_path / name)).FACTS
    with pytest.raises(DatasetError, match="folder: is missing"):
        ImageFolder()


def test_the_facts_follow_the_names_and_not_the_place_or_the_content(tmp_path):
    first = ImageFolder(folder=make(tmp_path / "a", two("a", "b"))).FACTS
    assert first == ImageFolder(folder=make(tmp_path / "b", two("b", "a"))).FACTS
    assert first != ImageFolder(folder=make(tmp_path / "c", two("a", "c"))).FACTS
    assert {**first, "revision": 2} == ImageFolder(folder=str(tmp_path / "a"), revision=2).FACTS
    assert json.loads(json.dumps(first)) == first


def test_a_folder_and_its_zip_are_packed_to_the_store_of_the_csv(tmp_path, decode_in_threads):
    names = two("train/a", "test/b")
    make(tmp_path / "images", names)
    (tmp_path / "images/images.csv").write_text(
        "path,label,split\n" + "".join(f"{n},{n.split('/')[1]},{n.split('/')[0]}\n" for n in names)
    )
    options = {
        "csv": {"file": str(tmp_path / "images/images.csv")},
        "folder": {"folder": str(tmp_path / "images")},
    }
    contents = set()
    for number, (type, given) in enumerate(
        [*options.items(), ("folder", {"folder": make_zip(tmp_path / "i.zip", names)})]
    ):
        pack(type, 8, tmp_path / f"store{number}", tmp_path, options=given)
        contents.add(Store(tmp_path / f"store{number}").manifest["content"])
    assert len(contents) == 1
