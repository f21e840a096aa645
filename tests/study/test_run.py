"""A run: how many images it has, and which data set it is tested on."""

from dataclasses import fields
from pathlib import Path

import pytest

from dmlbench.study.run import count_images, json_key
from dmlbench.study.study import check_study

PATH = "letters/tiny/softtriple/seed0"


@pytest.fixture
def run(letters):
    return check_study(letters, "my.yaml").runs[PATH]


def test_the_manifest_of_a_packed_store_counts_its_images(run, tmp_path, write_store):
    assert count_images(run, tmp_path) == {"train": 7502, "test": 7628}
    write_store(tmp_path, splits={"train": [2, 30], "test": [1, 20]})
    assert count_images(run, tmp_path) == {"train": 30, "test": 20}


def test_the_glyphs_have_about_as_many_images_as_their_file_says(run, glyphs):
    packed = {split: count for split, (_, count) in glyphs.manifest["splits"].items()}
    assert count_images(run, Path("none")) == pytest.approx(packed, rel=0.1)


def test_the_facts_count_the_images_of_a_published_data_set(changed):
    study = check_study(changed("datasets.letters", {"type": "omniglot"}), "my.yaml")
    assert count_images(study.runs[PATH], Path("none")) == {"train": 19280, "test": 13180}


def test_a_run_that_is_tested_on_other_data_differs_from_itself_only_in_its_data(changed):
    settings = changed("datasets.part", {"type": "glyphs", "class_fraction": 0.25})
    study = check_study(changed("datasets.letters.test_on", "part", settings), "my.yaml")
    run = study.runs[PATH]
    names = {field.name for field in fields(run)}
    different = {name for name in names if getattr(run, name) != getattr(run.tested, name)}
    assert different == {"dataset", "data", "test_on"}  # both are glyphs, with the same facts
    assert (run.tested.dataset, run.tested.data.class_fraction) == ("part", 0.25)


def test_a_key_does_not_depend_on_the_order_of_a_mapping():
    assert json_key({"a": 1, "b": [2]}) == json_key({"b": [2], "a": 1})
    assert json_key({"a": 1}) != json_key({"a": 2})
    assert len(json_key("x")) == 16
