"""The page of the data sets shows the headers of their files."""

from pathlib import Path

import pytest

from dmlbench.cli.main import main
from dmlbench.datasets import _docs_page, list_datasets
from dmlbench.datasets._docs_page import WITHOUT_ARCHIVE, header

PAGE = Path(__file__).parents[2] / "docs/datasets.md"


def test_the_page_of_the_docs_is_written_from_the_headers(capsys):
    with pytest.raises(SystemExit) as end:
        main(["list", "datasets", "--markdown"])
    assert not end.value.code
    assert PAGE.read_text("utf-8") == capsys.readouterr().out, (
        "run: dmlbench list datasets --markdown > docs/datasets.md"
    )


def test_a_data_set_of_the_user_names_a_page_that_is_there():
    lines = [line for line in _docs_page.lines() if line.split()[0] in ("csv", "folder", "parquet")]
    assert len(lines) == 3
    for line in lines:
        assert (PAGE.parents[1] / line.partition("see ")[2]).is_file()


@pytest.mark.parametrize("name", sorted({*list_datasets()} - {*WITHOUT_ARCHIVE}))
def test_each_header_is_complete(name):
    parts = header(name)
    assert all([parts.title, parts.summary, parts.access, parts.split, parts.paper])
    assert not parts.summary.endswith(".")


def test_a_header_is_read_part_by_part():
    parts = header("inat2018")
    assert parts.title == "iNaturalist 2018, the split of Smooth-AP"
    assert parts.summary == "461,939 photographs of 8,142 species"
    assert parts.paper.startswith("Grant Van Horn")
    assert parts.access.startswith("free download, 120 GB")
    assert "Smooth-AP: Smoothing the Path" in parts.split
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
def test_a_header_without_a_required_part_is_refused(monkeypatch, text):
    monkeypatch.setattr(_docs_page, "read_docstring", lambda module: text)
    with pytest.raises(ValueError, match=r"dmlbench\.datasets\.sop: a header is 'Name: what\.'"):
        header("sop")
