"""The sizes of classes, from rows, from a packed store, or from the facts alone."""

from pathlib import Path

import pytest

from dmlbench.datasets import Row
from dmlbench.datasets.store.part import WHOLE, Part
from dmlbench.study import class_sizes as module
from dmlbench.study.class_sizes import ClassSizes, ProtocolSizes, SplitSizes, class_sizes
from dmlbench.study.study import check_study


def rows_of(*classes):
    """Rows of classes, each (name, levels, split, [role of each image])."""
    return [
        Row(f"{name}{number}", name, levels, split, role)
        for name, levels, split, roles in classes
        for number, role in enumerate(roles)
    ]


def sizes_of(settings, stores, dataset="letters"):
    study = check_study(settings, "my.yaml")
    (run, *_) = (run for run in study.runs.values() if run.dataset == dataset)
    return class_sizes(run, stores)


def test_rows_are_counted_by_split_class_and_role():
    both = ["both"]
    rows = rows_of(
        ("b", ("x", "r"), "train", both * 3),
        ("a", ("y", "r"), "train", both * 2),
        ("c", ("x", "r"), "train", both * 2),
        ("d", ("x", "r"), "test", ["query", "query", "gallery"]),
        ("e", ("x", "r"), "test", ["gallery", "gallery"]),
        ("f", ("x", "r"), "test", both * 2),
        ("g", ("x", "r"), "test", both),
        ("h", ("x", "r"), "test", ["both", "query"]),
        ("i", ("x", "r"), "test", ["query"]),
    )
    assert module._count(rows, WHOLE) == ClassSizes(
        SplitSizes(3, 7, 3, [[1, 0, 0], [0, 0, 0]]),
        SplitSizes(6, 11, 3, [[0] * 6, [0] * 6]),
        # queries with an answer: both of d, both of f, and the query of h
        {"zero_shot": ProtocolSizes(queries=8, answerable=5, gallery=7)},
    )


def test_a_validation_part_trains_and_is_counted_alone_too():
    both = ["both"] * 2
    classes = (("a", "train"), ("b", "validation"), ("c", "validation"), ("d", "test"))
    rows = rows_of(*((name, (), split, both) for name, split in classes))
    sizes = module._count(rows, WHOLE)
    assert sizes.train == SplitSizes(3, 6, 2, [])
    assert sizes.validation == SplitSizes(2, 4, 2, [])
    assert sizes.test == SplitSizes(1, 2, 2, [])


def test_a_fraction_leaves_the_classes_that_the_store_leaves(tiny, glyphs, data_folder, tmp_path):
    for fraction in (0.1, 0.5):
        tiny["datasets"]["letters"]["class_fraction"] = fraction
        sizes = sizes_of(tiny, tmp_path)
        for name, found in (("train", sizes.train), ("test", sizes.test)):
            split = glyphs.split(name, Part(fraction))
            assert found.classes == len(split.class_names)
            assert found.images == len(split.rows)
            assert found.parents == split.parents.tolist()


def test_rows_are_read_once(own_data, tmp_path, monkeypatch):
    first = sizes_of(own_data, tmp_path, "a")
    monkeypatch.setattr(module, "known_rows", lambda dataset: pytest.fail("read again"))
    assert sizes_of(own_data, tmp_path, "a") == first
    assert first == ClassSizes(
        SplitSizes(1, 2, 2, []), SplitSizes(1, 2, 2, []), {"zero_shot": ProtocolSizes(2, 2, 2)}
    )


def test_other_rows_are_read_again(own_data, tmp_path, rows_of_csv):
    sizes_of(own_data, tmp_path, "a")
    Path("a.csv").write_text(rows_of_csv + "e.png,z,test\nf.png,z,test\n")
    assert sizes_of(own_data, tmp_path, "a").test.classes == 2


@pytest.mark.parametrize(
    ("dataset", "fraction", "train", "test"),
    [
        ("cub200", 1.0, (100, 5864), (100, 5924)),
        ("cub200", 0.025, (3, 5864), (3, 5924)),  # 2.5 is rounded up, as the reader does
        ("omniglot", 0.1, (964, 19280), (659, 13180)),  # a fraction of each alphabet
        ("lfw", 1.0, None, (5749, 13233)),
    ],
)
def test_before_the_archives_are_there_the_facts_are_known(
    dataset, fraction, train, test, letters, tmp_path
):
    trained = "cub200" if dataset == "lfw" else dataset
    letters["plan"]["datasets"] = [trained]
    letters["datasets"] = {trained: {"class_fraction": fraction}}
    if dataset == "lfw":
        letters["datasets"][trained]["test_on"] = "lfw"
    study = check_study(letters, "my.yaml")
    run = next(iter(study.runs.values())).tested
    assert class_sizes(run, tmp_path) == ClassSizes(
        train and SplitSizes(*train), SplitSizes(*test), {}
    )


def test_nobody_knows_sizes_that_no_file_declares(letters, tmp_path):
    letters["plan"]["datasets"] = ["vehicleid"]
    assert sizes_of(letters, tmp_path, "vehicleid") is None


def test_a_packed_store_gives_exact_sizes(tiny, glyphs, data_folder, store_name, monkeypatch):
    sizes = sizes_of(tiny, data_folder / "stores")
    study = check_study(tiny, "my.yaml")
    run = next(iter(study.runs.values()))
    assert module._read(run, data_folder / "stores") == sizes
