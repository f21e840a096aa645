"""A study has no name that its folder of results cannot have."""

from pathlib import Path

import pytest

from dmlbench.study import preflight
from dmlbench.study.study import check_study
from dmlbench.study.study_names import folder_problem, length_problem
from dmlbench.utils.errors import StudyError

REFUSED = {
    "mlflow.db": "is the name of a file or a folder in results/",
    "mlflow.db-wal": "is the name of a file or a folder in results/",
    "MLflow": "is the name of a file or a folder in results/",
    "mlartifacts": "is the name of a file or a folder in results/",
    "README.md": "is the name of a file or a folder in results/",
    "con": "is the name of a device on Windows",
    "Aux.old": "is the name of a device on Windows",
    "a" * 101: "at most 100 characters, as it names a folder",
    "a" * 5000: "at most 100 characters, as it names a folder",
    "ä" * 90: "letters, digits, _ . + -, and a letter or a digit first",
    ".": "a letter or a digit first",
    "..": "a letter or a digit first",
    ".hidden": "a letter or a digit first",
    "a/b": "a letter or a digit first",
    "": "a letter or a digit first",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_no_folder_can_have_is_refused(name, changed):
    with pytest.raises(StudyError) as refused:
        check_study(changed("study", name), "my.yaml")
    _, line = str(refused.value).splitlines()
    assert line.startswith("  study: ")
    assert REFUSED[name] in line


@pytest.mark.parametrize("name", ["a" * 100, "mlflow2", "readme", "console", "v1.0+b_2-c"])
def test_other_names_are_free(name, changed):
    assert check_study(changed("study", name), "my.yaml").name == name


@pytest.mark.parametrize("section", ["losses", "backbones", "datasets"])
def test_a_name_of_an_entry_is_short_enough_for_a_folder(section, changed):
    with pytest.raises(StudyError, match=rf"{section}.*at most 100 characters, as it names"):
        check_study(changed(f"{section}.{'a' * 101}", {"type": "rll"}), "my.yaml")


def test_a_file_in_place_of_the_folder_is_named_before_any_job(changed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for trial in ("_backbone_problems", "_loss_problems"):  # they import torch
        monkeypatch.setattr(preflight, trial, lambda *_: [])
    (tmp_path / "results").mkdir()
    (tmp_path / "results/mine").touch()
    (tmp_path / "results/Other").mkdir()
    for name, problem in (
        ("mine", "study: results/mine is a file, and the results need a folder of this name"),
        ("OTHER", "study: results/Other differs from results/OTHER only in upper and lower case"),
    ):
        settings = changed("study", name)
        settings["plan"] |= {"losses": ["rll"], "controls": []}
        with pytest.raises(StudyError, match=problem):
            preflight.check_before_jobs(check_study(settings, "my.yaml"), tmp_path / "stores")


def test_the_folder_of_the_study_itself_is_no_problem(tmp_path):
    (tmp_path / "results/mine").mkdir(parents=True)
    assert folder_problem(tmp_path / "results/mine") is None
    assert folder_problem(tmp_path / "results/new") is None
    assert folder_problem(tmp_path / "nothing/new") is None


def test_a_path_is_counted_in_bytes():
    deep = Path("/" + "/".join(["ä" * 100] * 19))  # 3,819 bytes, 1,919 letters
    assert length_problem([Path("/short"), deep]).startswith("study: the files in '/ä")
    assert length_problem([Path("/" + "/".join(["a" * 100] * 19))]) is None
    assert length_problem([]) is None
