"""Images in Parquet files, in the forms that people have."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmlbench.datasets.csv import Csv
from dmlbench.datasets.parquet import Parquet
from dmlbench.datasets.parquet_files import read_images
from dmlbench.datasets.store.pack import pack
from dmlbench.datasets.store.reader import Store
from dmlbench.utils.errors import DatasetError

from .made_parquet import IMAGE, encode, write_parquet

FRUIT = ["apple", "pear", "plum", "fig"]
LABELS = [0, 0, 1, 1, 2, 2, 3, 3]
TRAIN, TEST = "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"


def splits(dataset):
    """{class: split}."""
    return {row.class_name: row.split for row in dataset.rows}


def test_the_names_of_the_classes_come_from_the_metadata(tmp_path):
    file = write_parquet(tmp_path / "a.parquet", LABELS, FRUIT)
    dataset = Parquet(files=str(file))
    assert sorted({row.class_name for row in dataset.rows}) == sorted(FRUIT)
    assert dataset.FACTS["splits"] == {"train": [2, 4], "test": [2, 4]}
    numbered = write_parquet(tmp_path / "b.parquet", LABELS, dict(enumerate(FRUIT)))
    assert splits(Parquet(files=str(numbered))) == splits(dataset)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["fig", "fig", "Pear ", "Pear"], ["Pear", "fig"]),
        ([7, 7, 12, 12], ["12", "7"]),
        ([True, True, False, False], ["False", "True"]),
        (pa.array(["b", "b", "a", "a"]).dictionary_encode(), ["a", "b"]),
        (["\u00e9", "e\u0301", "x", "x"], ["\u00e9", "x"]),
    ],
)
def test_labels_without_metadata_are_names_themselves(tmp_path, labels, expected):
    file = write_parquet(tmp_path / "a.parquet", labels)
    assert sorted({row.class_name for row in Parquet(files=str(file)).rows}) == sorted(expected)


def test_names_in_one_file_and_bare_numbers_in_another_are_refused(tmp_path):
    write_parquet(tmp_path / "a.parquet", LABELS, FRUIT)
    write_parquet(tmp_path / "b.parquet", [FRUIT[label] for label in LABELS])
    assert {*splits(Parquet(files=str(tmp_path)))} == {*FRUIT}
    write_parquet(tmp_path / "c.parquet", LABELS)
    with pytest.raises(DatasetError, match=r"names in one of a\.parquet and c\.parquet, and num"):
        Parquet(files=str(tmp_path)).check()


def test_the_classes_are_drawn_as_with_a_csv(tmp_path):
    names = [FRUIT[label] for label in LABELS]
    file = write_parquet(tmp_path / "a.parquet", LABELS, FRUIT)
    lines = [f"{number}.png,{name}" for number, name in enumerate(names)]
    (tmp_path / "a.csv").write_text("\n".join(["path,label", *lines]))
    for seed in range(4):
        table = Csv(file=str(tmp_path / "a.csv"), split_seed=seed)
        assert splits(Parquet(files=str(file), split_seed=seed)) == splits(table)


def test_the_names_of_the_files_say_the_parts(tmp_path):
    write_parquet(tmp_path / TRAIN, [0, 0, 1, 1], FRUIT)
    write_parquet(tmp_path / TEST, [2, 2, 3, 3], FRUIT)
    expected = {"apple": "train", "pear": "train", "plum": "test", "fig": "test"}
    files = [str(tmp_path / TRAIN), str(tmp_path / TEST)]
    for given in (
        str(tmp_path),
        str(tmp_path / "data/*.parquet"),
        str(tmp_path / "**/*.parquet"),
        files,
    ):
        assert splits(Parquet(files=given)) == expected
    assert splits(Parquet(files=str(tmp_path), split="classes", split_seed=1)) != expected
    write_parquet(tmp_path / "b/train/0.parquet", [0, 0], FRUIT)
    write_parquet(tmp_path / "b/validation/0.parquet", [2, 2], FRUIT)
    assert splits(Parquet(files=str(tmp_path / "b"))) == {"apple": "train", "plum": "test"}


def test_a_column_split_says_the_parts(tmp_path):
    parts = ["train", "train", "test", "test", "test", "test", "train", "train"]
    file = write_parquet(tmp_path / "train.parquet", LABELS, FRUIT, split=parts)
    expected = {"apple": "train", "pear": "test", "plum": "test", "fig": "train"}
    assert splits(Parquet(files=str(file))) == expected


def test_a_split_of_a_classification_task_is_refused_unless_classes_are_split(tmp_path):
    write_parquet(tmp_path / TRAIN, LABELS, FRUIT)
    write_parquet(tmp_path / TEST, LABELS, FRUIT)
    with pytest.raises(DatasetError, match="4 of 4 classes in train and in test, as apple"):
        Parquet(files=str(tmp_path)).check()
    dataset = Parquet(files=str(tmp_path), split="classes")
    assert dataset.FACTS["splits"] == {"train": [2, 8], "test": [2, 8]}
    assert len(Parquet(files=str(tmp_path), ignore=("test",)).rows) == 8


def test_a_part_without_labels_is_left_out(tmp_path):
    write_parquet(tmp_path / TRAIN, LABELS, FRUIT)
    write_parquet(tmp_path / TEST, [-1, -1], FRUIT)
    with pytest.raises(DatasetError, match=r"rows without a class:\n +row 0: label is -1\n +row 1"):
        Parquet(files=str(tmp_path)).check()
    assert len(Parquet(files=str(tmp_path), ignore=("test",)).rows) == 8


def test_paths_of_the_images_are_kept_if_each_has_its_own(tmp_path):
    paths = [f"x\\{number}.png" for number in range(8)]
    file = write_parquet(tmp_path / "a.parquet", LABELS, FRUIT, paths)
    assert Parquet(files=str(file)).rows[0].path == "x/0.png"
    for other in ([None, *paths[1:]], [paths[1], *paths[1:]]):
        file = write_parquet(tmp_path / "b.parquet", LABELS, FRUIT, other)
        rows = Parquet(files=str(file)).rows
        assert [row.path for row in rows] == [f"b.parquet/{number:06}" for number in range(8)]


def test_levels_are_columns(tmp_path):
    kinds = [*["pome"] * 4, *["stone"] * 2, *["soft"] * 2]
    file = write_parquet(tmp_path / "a.parquet", LABELS, FRUIT, kind=kinds)
    dataset = Parquet(files=str(file), levels=("kind",))
    assert dataset.FACTS["levels"] == ["kind"]
    assert {row.class_name: row.levels for row in dataset.rows}["fig"] == ("soft",)
    file = write_parquet(tmp_path / "b.parquet", LABELS, FRUIT, kind=["soft", *kinds[1:]])
    with pytest.raises(DatasetError, match="super-classes of class 'apple' are pome, and soft in"):
        Parquet(files=str(file), levels=("kind",)).check()


def test_columns_are_chosen_if_there_is_one_choice(tmp_path):
    labels = [0, 0, 1, 1]
    file = write_parquet(tmp_path / "a.parquet", labels, FRUIT, image="img", label="fine")
    assert len(Parquet(files=str(file)).rows) == 4
    thumbs = pa.array([encode(k) for k in range(4)])
    file = write_parquet(tmp_path / "b.parquet", labels, label="species", thumb=thumbs)
    with pytest.raises(DatasetError, match=r"image: name the column of the image.*image, thumb"):
        Parquet(files=str(file)).check()
    with pytest.raises(DatasetError, match=r"label: name the column of .*no column is the class"):
        Parquet(files=str(file), image="thumb").check()
    dataset = Parquet(files=str(file), image="thumb", label="species")
    assert [source for _, source in dataset.images({})] == [encode(k) for k in range(4)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "labl"}, r"label: .* has no column 'labl'\. Did you mean 'label'"),
        ({"image": "img"}, r"image: .* has no column 'img'"),
        ({"levels": ("kind",)}, r"levels: .* has no column 'kind'"),
        ({"image": "label"}, r"image: column label of .* is int64, and no image"),
        ({"label": "image"}, r"column image is struct<.*, and neither text nor whole numbers"),
        ({"label": "size"}, r"column size is double, and neither text nor whole numbers"),
        ({"ignore": ("figs",)}, r"ignore: .* has no part and no class figs"),
        ({"files": "nothing/*.parquet"}, r"files: there is no file nothing/\*\.parquet"),
        ({"files": "x/**.parquet"}, r"files: there is no file x/\*\*\.parquet"),
        ({"files": ""}, "files: is missing: Parquet files, or a `repo`"),
    ],
)
def test_a_wrong_option_is_named(tmp_path, options, message):
    file = write_parquet(tmp_path / "a.parquet", LABELS, FRUIT, size=[0.5] * 8)
    with pytest.raises(DatasetError, match=message):
        Parquet(**{"files": str(file), **options}).check()


def test_ignore_leaves_out_classes(tmp_path):
    file = write_parquet(tmp_path / "a.parquet", [*LABELS[:-1]], FRUIT)
    with pytest.raises(DatasetError, match="class 'fig' has only one image"):
        Parquet(files=str(file)).check()
    assert {*splits(Parquet(files=str(file), ignore=("fig",)))} == {"apple", "pear", "plum"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-20], "this is no whole Parquet file"),
        (lambda content: content[:100] + content[200:], "this is no whole Parquet file"),
        (lambda content: b"", "this is no whole Parquet file"),
        (lambda content: b"version https://git-lfs.github.com/spec/v1\noid", "run `git lfs pull`"),
        (lambda content: b"<!DOCTYPE html>", "this is no whole Parquet file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage, message):
    file = write_parquet(tmp_path / "a.parquet", LABELS, FRUIT)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DatasetError, match=rf"a\.parquet.*{message}"):
        [*Parquet(files=str(file)).images({})]


def test_a_folder_without_parquet_files_is_named(tmp_path):
    with pytest.raises(DatasetError, match="files: there is no Parquet file in the folder"):
        Parquet(files=str(tmp_path)).check()


def test_images_without_bytes_are_named_when_they_are_packed(tmp_path, decode_in_threads):
    images = [{"bytes": encode(k), "path": f"{k}.png"} for k in range(8)]
    images[3]["bytes"] = images[5]["bytes"] = None
    file = write_parquet(tmp_path / "a.parquet", LABELS, FRUIT, images=images)
    with pytest.raises(DatasetError) as error:
        pack("parquet", 8, tmp_path / "store", tmp_path, options={"files": str(file)})
    for row in (3, 5):
        text = f"a.parquet, row {row}: {row}.png: cannot decode this image: the file holds only the"
        assert text in str(error.value)


def test_the_facts_follow_the_rows_and_not_the_files(tmp_path):
    paths = [f"{number}.png" for number in range(8)]
    whole = write_parquet(tmp_path / "a.parquet", LABELS, FRUIT, paths)
    facts = Parquet(files=str(whole)).FACTS
    write_parquet(tmp_path / "shards/0.parquet", LABELS[:4], FRUIT, paths[:4])
    write_parquet(tmp_path / "shards/1.parquet", LABELS[4:], FRUIT, paths[4:])
    assert facts == Parquet(files=str(tmp_path / "shards")).FACTS
    assert {**facts, "revision": 2} == Parquet(files=str(whole), revision=2).FACTS
    assert facts != Parquet(files=str(whole), split_seed=1).FACTS


def test_a_repo_is_known_by_its_commit_and_counted_once_it_is_staged(tmp_path, monkeypatch):
    monkeypatch.setenv("DMLBENCH_DATA", str(tmp_path))
    commit = "0" * 40
    dataset = Parquet(repo="owner/fruit", revision=commit, levels=("kind",))
    facts = dataset.FACTS
    assert (dataset.is_staged, dataset.ABOUT, dataset.place) == (False, None, None)
    dataset.check()  # there is nothing to check yet
    folder = tmp_path / "archives/hub/owner--fruit" / commit
    kinds = {"kind": ["pome", "pome", "stone", "stone"]}
    files = {TRAIN: [0, 0, 1, 1], TEST: [2, 2, 3, 3]}
    for name, labels in files.items():
        write_parquet(folder / name, labels, FRUIT, **kinds)
    listing = {"files": {name: {"size": 1, "checksum": "git:0"} for name in files}}
    (folder / "files.json").write_text(json.dumps(listing))
    dataset = Parquet(repo="owner/fruit", revision=commit, levels=("kind",))
    assert facts == dataset.FACTS
    assert (dataset.is_staged, dataset.ABOUT) == (True, {"train": [2, 4], "test": [2, 4]})
    assert splits(dataset)["plum"] == "test"
    (folder / TEST).write_bytes(b"")
    with pytest.raises(DatasetError, match="this is no whole Parquet file"):
        Parquet(repo="owner/fruit", revision=commit, levels=("kind",)).check()


def test_options_as_lists_are_those_of_a_study(tmp_path):
    file = str(write_parquet(tmp_path / "a.parquet", LABELS, FRUIT, kind=["x"] * 8))
    for where in ({"files": [file]}, {"repo": "owner/fruit", "revision": "0" * 40}):
        lists = {**where, "levels": ["kind"], "ignore": ["fig"]}
        tuples = {name: tuple(v) if isinstance(v, list) else v for name, v in lists.items()}
        facts = Parquet(**lists).FACTS
        # a store keeps them as JSON, and is compared with those of the study
        assert facts == Parquet(**tuples).FACTS == json.loads(json.dumps(facts))


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "1" * 40},
        {"label": "x"},
        {"split": "classes"},
        {"files": "a*"},
        {"repo": "o/b"},
    ],
)
def test_another_reading_of_a_repo_has_other_facts(change):
    options = {"repo": "owner/fruit", "revision": "0" * 40}
    assert Parquet(**{**options, **change}).FACTS != Parquet(**options).FACTS


def test_memory_is_that_of_a_row_group_and_not_of_the_file(tmp_path):
    images = [{"bytes": os.urandom(100_000), "path": None} for _ in range(300)]
    table = pa.table({"image": pa.array(images, IMAGE)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=20)  # 15 groups of 2 MB
    before, most, count = pa.total_allocated_bytes(), 0, 0
    for image, content in zip(images, read_images(tmp_path / "a.parquet", "image"), strict=True):
        count += content == image["bytes"]
        most = max(most, pa.total_allocated_bytes() - before)
    assert count == 300
    assert most < 15e6  # of 30 MB


def test_parquet_is_packed_to_the_store_of_the_csv(tmp_path, decode_in_threads):
    paths = [f"{number}.png" for number in range(8)]
    write_parquet(tmp_path / "a.parquet", LABELS, FRUIT, paths)
    lines = [f"{path},{FRUIT[label]}" for path, label in zip(paths, LABELS, strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(["path,label", *lines]))
    for number, path in enumerate(paths):
        (tmp_path / path).write_bytes(encode(number))
    contents = set()
    for type, options in {"csv": {"file": "a.csv"}, "parquet": {"files": "a.parquet"}}.items():
        given = {name: str(tmp_path / value) for name, value in options.items()}
        pack(type, 8, tmp_path / type, tmp_path, options=given)
        contents.add(Store(tmp_path / type).manifest["content"])
    assert len(contents) == 1
