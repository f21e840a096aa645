"""The page of the data sets is what their files say."""

from pathlib import Path

import pytest

from dmlbench import source
from dmlbench.cli import main
from dmlbench.datasets import list_datasets
from dmlbench.datasets._headers import WITHOUT_ARCHIVE, header

PAGE = Path(__file__).parents[2] / "docs/datasets.md"


def test_the_page_of_the_docs_is_written_from_the_files(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["list", "datasets", "--markdown"])
    assert not ended.value.code
    assert PAGE.read_text("utf-8") == capsys.readouterr().out, (
        "run: dmlbench list datasets --markdown > docs/datasets.md"
    )


@pytest.mark.parametrize("name", sorted({*list_datasets()} - {*WITHOUT_ARCHIVE}))
def test_each_header_is_whole(name):
    found = header(name)
    assert all([found.title, found.what, found.access, found.split, found.paper])
    assert not found.what.endswith(".")


def test_a_header_is_read_part_by_part():
    found = header("inat2018")
    assert found.title == "iNaturalist 2018, the split of Smooth-AP"
    assert found.what == "461,939 photographs of 8,142 species"
    assert found.paper.startswith("Grant Van Horn")
    assert found.access.startswith("free download, 120 GB")
    assert "Smooth-AP: Smoothing the Path" in found.split
    assert header("omniglot").traps == ""


@pytest.mark.parametrize(
    "text",
    [
        "Made: images.",
        "Made.\n\nPaper.\n\nAccess: free.\n\nSplit: half.",
        "Made: images.\n\nPaper.\n\nSplit: half.",
        "Made: images.\n\nAccess: free.\n\nSplit: half.",
    ],
)
def test_a_header_of_another_form_is_refused(monkeypatch, text):
    monkeypatch.setattr(source, "docstring", lambda module: text)
    with pytest.raises(ValueError, match=r"dmlbench\.datasets\.sop: a header is 'Name: what\.'"):
        header("sop")
