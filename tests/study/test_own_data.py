"""The user's own images and embeddings: their stores, their rows, and the check of their files."""

from pathlib import Path

import pytest

from dmlbench.study.image_checks import image_problems
from dmlbench.study.study import check_study
from dmlbench.utils.errors import StudyError


@pytest.fixture
def pack(tmp_path, write_store):
    """Write the manifest of each store of a study, as if it was packed from a folder."""

    def write(study, place):
        for name in study.stores:
            write_store(tmp_path / "stores" / name, settings={"place": str(place)})

    return write


def test_each_entry_with_options_has_its_own_store(own_data):
    Path("b.csv").write_text(Path("a.csv").read_text())  # the same images, and still two stores
    stores = check_study(own_data, "my.yaml").stores
    by_entry = {name.partition("-")[0]: run for name, run in stores.items()}
    assert set(by_entry) == {"glyphs", "a", "b"}
    assert len(stores) == 3
    assert by_entry["a"].facts["splits"] == {"train": [1, 2], "test": [1, 2]}


def test_another_row_gives_another_store(own_data, rows_of_csv):
    before = set(check_study(own_data, "my.yaml").stores)
    Path("a.csv").write_text(rows_of_csv.replace("x", "z"))
    after = set(check_study(own_data, "my.yaml").stores)
    assert {name.partition("-")[0] for name in after - before} == {"a"}


def test_external_embeddings_are_one_row_of_their_data_set(own_data):
    study = check_study(own_data, "my.yaml")
    external = {path: run for path, run in study.runs.items() if run.embeddings}
    assert set(external) == {"letters/tiny/embeddings_own/seed0"}
    (run,) = external.values()
    assert not run.uses_model
    assert run.store.startswith("glyphs-32-")


def test_the_message_about_a_study_has_the_wrong_lines_of_its_csv(own_data, rows_of_csv):
    Path("a.csv").write_text(rows_of_csv.replace("b.png,x", "b.png,"))
    Path("b.csv").write_text(rows_of_csv.replace("train\nc", "test\nc"))
    with pytest.raises(StudyError) as caught:
        check_study(own_data, "my.yaml")
    assert "datasets.a: a.csv: 2 problems:\n    line 2: class 'x'" in str(caught.value)
    assert "line 3: label is empty" in str(caught.value)
    assert "line 3: split of class 'x' is 'test', and 'train' on line 2" in str(caught.value)


def test_missing_images_are_named_before_any_job(own_data, tmp_path):
    study = check_study(own_data, "my.yaml")
    first, second = image_problems(study, tmp_path / "stores")
    assert first.startswith("datasets.a: 4 images are not in .:\n    a.csv, line 2: no file a.png")
    assert second.startswith("datasets.b: ")


def test_images_need_not_be_there_once_they_are_packed(own_data, tmp_path, pack):
    study = check_study(own_data, "my.yaml")
    pack(study, tmp_path.resolve() / "moved since")
    assert [*image_problems(study, tmp_path / "stores")] == []


def test_images_that_were_packed_from_another_folder_are_refused(own_data, tmp_path, pack):
    study = check_study(own_data, "my.yaml")
    other = tmp_path.resolve() / "other"
    other.mkdir()
    pack(study, other)
    problems = [*image_problems(study, tmp_path / "stores")]
    assert len(problems) == 2
    assert f"was packed from {other}, which is still there, and the study names ." in problems[0]


def test_a_damaged_store_is_refused_before_any_job(own_data, pack, tmp_path):
    study = check_study(own_data, "my.yaml")
    pack(study, Path.cwd())
    stores = tmp_path / "stores"
    assert [*image_problems(study, stores)] == []
    for name, run in study.stores.items():
        (stores / name / "protocols.parquet").write_bytes(b"y")
        assert [*image_problems(study, stores)] == [
            f"datasets.{run.dataset}: {stores / name}: no complete store of a data set: "
            f"protocols.parquet is damaged: it is not the file that was packed. Delete the folder, "
            f"and `snakemake data` packs it again."
        ]
        (stores / name / "protocols.parquet").write_bytes(b"x")
