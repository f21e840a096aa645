"""made.json says what a leaderboard was made from, and whether its files are still those."""

import pytest

from dmlbench.leaderboard.made_of import (
    UNKNOWN,
    find_changed_files,
    leaderboard_digest,
    read_made_of,
    read_results_digest,
    write_made_of,
)
from dmlbench.study.study import check_study

from ..result_edits import edit_result

PATH = "letters/tiny/proxy_anchor/seed0"


@pytest.fixture
def study(tiny, tmp_path, monkeypatch, write_results):
    """The tiny study with results, and a leaderboard of two files."""
    monkeypatch.chdir(tmp_path)
    study = check_study(tiny, "tiny")
    write_results(study)
    plots = study.files.leaderboard / "plots"
    plots.mkdir(parents=True)
    (plots / "recall.png").write_bytes(b"png")
    study.files.table.write_text("| loss |\n")
    return study


def test_it_names_the_plan_the_results_and_all_files(study):
    write_made_of(study, read_results_digest(study))
    made_of = read_made_of(study.files)
    assert made_of["key"] == study.leaderboard_key
    assert made_of["results"] == read_results_digest(study)
    assert [*made_of["files"]] == ["leaderboard.md", "plots/recall.png"]
    assert find_changed_files(study.files.leaderboard, made_of) == []


def test_any_change_of_a_file_is_found(study):
    write_made_of(study, read_results_digest(study))
    made_of, picture = read_made_of(study.files), study.files.leaderboard / "plots/recall.png"
    study.files.table.unlink()
    picture.write_bytes(b"pnG")
    assert find_changed_files(study.files.leaderboard, made_of) == [study.files.table, picture]


def test_the_digest_of_results_depends_on_each_of_them_and_on_what_is_missing(study):
    files, digests = study.files.run(PATH), {read_results_digest(study)}
    edit_result(files.run, remark="new")
    digests.add(read_results_digest(study))
    edit_result(files.metrics, remark="new")
    digests.add(read_results_digest(study))
    files.metrics.write_text("{}")
    digests.add(read_results_digest(study))
    files.run.unlink()
    digests.add(read_results_digest(study))
    assert len(digests) == 5


def test_a_leaderboard_is_named_by_all_that_it_is(study):
    assert leaderboard_digest(study.files) == UNKNOWN
    write_made_of(study, "results")
    first = leaderboard_digest(study.files)
    write_made_of(study, "results")
    assert leaderboard_digest(study.files) == first
    study.files.table.write_text("| another |\n")
    write_made_of(study, "results")
    assert leaderboard_digest(study.files) not in (first, UNKNOWN)


@pytest.mark.parametrize("content", ["", "{}", "[]", "null"])
def test_a_damaged_one_says_nothing(study, content):
    study.files.made_of.write_text(content)
    assert read_made_of(study.files) is None
    another_kind = study.files.run(PATH).run.read_text()
    study.files.made_of.write_text(another_kind)
    assert read_made_of(study.files) is None
