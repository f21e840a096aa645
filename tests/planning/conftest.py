import json

import pytest

from dmlbench.study.study import TABLES, check_study
from dmlbench.utils.fingerprint import code_digests
from dmlbench.workflow.verdict import success_message


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    """The current folder has no results."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stores(tmp_path):
    """The folder of packed images."""
    return tmp_path / "stores"


@pytest.fixture
def finish(stores, write_results):
    """Write the files of a study as its jobs leave them when all have succeeded."""

    def write(study):
        write_results(study)
        for store in study.stores:
            (stores / store).mkdir(parents=True, exist_ok=True)
            (stores / store / "manifest.json").touch()
        files = study.files
        files.leaderboard.mkdir(exist_ok=True)
        files.table.touch()
        made_of = {"key": study.leaderboard_key, "code": code_digests(TABLES)}
        files.made_of.write_text(json.dumps(made_of))
        files.verdict.write_text(success_message(study) + "\n")

    return write


@pytest.fixture
def finished(tiny, finish):
    """The tiny study, finished."""
    study = check_study(tiny, "tiny")
    finish(study)
    return study


@pytest.fixture
def edit_result():
    """Change keys of a result file; None removes a key."""

    def edit(file, **changes):
        result = json.loads(file.read_text()) | changes
        kept = {name: value for name, value in result.items() if value is not None}
        file.write_text(json.dumps(kept))

    return edit
