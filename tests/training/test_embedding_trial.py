"""A file of external embeddings that cannot be scored is known before any job."""

from pathlib import Path

import numpy as np
import pytest

from dmlbench.datasets.store.part import WHOLE, Part
from dmlbench.study.preflight import ExternalFile
from dmlbench.training.embedding_trial import problem_of

CSV = """path,label,split
a.png,x,train
b.png,x,train
c.png,y,test
d.png,y,test
"""


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """The problem of a file with these arrays, for the images of a CSV."""
    monkeypatch.chdir(tmp_path)
    Path("my.csv").write_text(CSV)

    def ask(type="csv", **arrays):
        np.savez("own.npz", **arrays)
        options = {"file": "my.csv"} if type == "csv" else {}
        return problem_of(ExternalFile("own.npz", type, options, WHOLE, str(tmp_path / "store")))

    return ask


def test_a_file_with_all_test_images_fits(ask):
    assert ask(embeddings=np.ones((2, 3)), path=np.array(["d.png", "c.png"])) == ""
    assert ask(embeddings=np.ones((2, 3)), id=np.array([2, 3])) == ""


def test_images_that_are_missing_are_named_before_they_are_packed(ask):
    problem = ask(embeddings=np.ones((1, 3)), path=np.array(["c.png"]))
    assert problem.startswith("own.npz: 1 of 2 test images")
    assert "d.png" in problem
    assert "own.npz: 2 of 2 test images" in ask(embeddings=np.ones((2, 3)), id=np.array([0, 1]))


def test_before_archives_are_read_only_the_arrays_are_checked(ask):
    assert ask("cub200", embeddings=np.ones((1, 3)), path=np.array(["c.png"])) == ""
    assert ask("cub200", vectors=np.ones((1, 3))).startswith("own.npz: it holds")


def test_a_packed_store_says_which_images_there_are(glyphs, data_folder, store_name, tmp_path):
    folder = str(data_folder / "stores" / store_name)
    rows = glyphs.split("test", Part(0.1)).rows
    np.savez(tmp_path / "own.npz", embeddings=np.ones((len(rows), 2)), id=rows)
    question = ExternalFile(str(tmp_path / "own.npz"), "glyphs", {}, Part(0.1), folder)
    assert problem_of(question) == ""
    assert "test images" in problem_of(question._replace(part=Part(0.5)))
