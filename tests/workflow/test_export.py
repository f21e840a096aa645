"""The results of a study as one archive: equal results, equal bytes; and merge loads it."""

import hashlib
import zipfile

import pandas as pd
import pytest
import yaml

from dmlbench.leaderboard.table import read_results, tabulate
from dmlbench.study.study import check_study
from dmlbench.utils.errors import MissingResult
from dmlbench.workflow.export import export
from dmlbench.workflow.merge import merge


@pytest.fixture
def study(tiny, tmp_path, monkeypatch, write_results):
    monkeypatch.chdir(tmp_path)
    study = check_study(tiny, "tiny")
    write_results(study)
    study.files.snapshot.write_text(study.settings.model_dump_json())
    study.files.leaderboard.mkdir()
    study.files.page.write_text("<table>")
    return study


def test_it_holds_what_a_reader_needs_and_no_embeddings(study, tmp_path):
    assert export(study, tmp_path / "a.zip") == len(study.runs)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
        citation = yaml.safe_load(archive.read("CITATION.cff"))
        sums = dict(reversed(line.split("  ")) for line in
                    archive.read("SHA256SUMS").decode().splitlines())  # fmt: skip
        assert sums.keys() == {*names} - {"SHA256SUMS"}
        for name, digest in sums.items():
            assert hashlib.sha256(archive.read(name)).hexdigest() == digest
    assert citation["title"].startswith("Results of the study tiny, made with dmlbench")
    assert {"tiny/study.json", "tiny/leaderboard/leaderboard.html"} <= {*names}
    assert {name.rpartition("/")[2] for name in names if "/runs/" in name} == {
        "run.json",
        "metrics.json",
        "history.parquet",
    }


def test_equal_results_make_equal_archives(study, tmp_path):
    for name in ("a.zip", "b.zip"):
        export(study, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_merge_loads_it(study, tmp_path):
    before = tabulate(read_results(study.rows, study.files))
    export(study, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "published")
    study.folder.rename(tmp_path / "gone")
    merged = merge(study, [tmp_path / "published/tiny"])
    assert [*merged.copied.values()] == [len(study.runs)]
    assert merged.missing == []
    pd.testing.assert_frame_equal(before, tabulate(read_results(study.rows, study.files)))


def test_a_study_without_a_leaderboard_is_refused(study, tmp_path):
    study.files.page.unlink()
    with pytest.raises(MissingResult, match="there is no leaderboard yet: dmlbench run tiny"):
        export(study, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
