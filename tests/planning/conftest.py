import pytest

from dmlbench.gallery.made_of import read_gallery_digest
from dmlbench.gallery.made_of import write_made_of as write_gallery_made_of
from dmlbench.leaderboard.made_of import read_results_digest, write_made_of
from dmlbench.study.study import check_study
from dmlbench.tracking.sync import tracking_uri
from dmlbench.utils.digests import add_digest
from dmlbench.workflow.verdict import leaderboard_line, success_message

from .. import result_edits


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    """The current folder has no results."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stores(tmp_path):
    """The folder of packed images."""
    return tmp_path / "stores"


@pytest.fixture
def finish(stores, write_results, write_store, note_duplicates):
    """Write the files of a study as its jobs leave them when all have succeeded."""

    def write(study):
        write_results(study)
        for store in study.stores:
            write_store(stores / store)
        for run in study.runs.values():
            note_duplicates(stores, run.store, run.tested.store)
        files = study.files
        files.leaderboard.mkdir(exist_ok=True)
        files.table.touch()
        write_made_of(study, read_results_digest(study))
        for group in study.galleries:
            pictures = files.gallery(group)
            pictures.folder.mkdir(parents=True, exist_ok=True)
            pictures.differences.touch()
            write_gallery_made_of(study, group, read_gallery_digest(study, group), {})
        if study.settings.tracking:
            lines = [f"key {study.tracking_key(tracking_uri())}", leaderboard_line(study)]
            files.tracked.write_text(add_digest("\n".join([*lines, ""])))
        files.verdict.write_text(f"{success_message(study)}\n{leaderboard_line(study)}\n")

    return write


@pytest.fixture
def finished(tiny, finish):
    """The tiny study, finished."""
    study = check_study(tiny, "tiny")
    finish(study)
    return study


@pytest.fixture
def edit_result():
    """Change keys of a result file, whose digest does not reveal it."""
    return result_edits.edit_result
