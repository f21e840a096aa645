import pytest

from dmlbench.study.study import check_study


@pytest.fixture
def study(tiny, tmp_path, monkeypatch):
    """The tiny study, in a folder without results."""
    monkeypatch.chdir(tmp_path)
    return check_study(tiny, "tiny")
