from pathlib import Path

import pytest

from dmlbench.utils.errors import WrongEnvironment
from dmlbench.utils.files import data_folder


def test_the_data_folder_is_named_by_the_environment(monkeypatch, tmp_path):
    for value, folder in (("", "data"), (str(tmp_path), tmp_path), ("/no/such", "/no/such")):
        monkeypatch.setenv("DMLBENCH_DATA", value)
        assert data_folder() == Path(folder)
    monkeypatch.delenv("DMLBENCH_DATA")
    assert data_folder() == Path("data")


def test_a_file_is_no_data_folder(monkeypatch, tmp_path):
    file = tmp_path / "data"
    file.touch()
    monkeypatch.setenv("DMLBENCH_DATA", str(file))
    with pytest.raises(WrongEnvironment, match=rf"^DMLBENCH_DATA={file}: it is a file, "):
        data_folder()
