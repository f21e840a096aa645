import shutil

import pytest

from ..project import Project, copy_project


@pytest.fixture
def project(tmp_path, data_folder, tiny):
    """A project with nothing computed."""
    made = Project(copy_project(tmp_path / "made"), data_folder)
    made.write(tiny)
    return made


@pytest.fixture(scope="session")
def _finished(tmp_path_factory, data_folder, tiny_settings):
    folder = copy_project(tmp_path_factory.mktemp("finished") / "made")
    made = Project(folder, data_folder)
    made.write(tiny_settings)
    made.output = made.run()
    return made


@pytest.fixture
def finished(_finished, tmp_path, data_folder):
    """A project with the tiny study run to its end on two cores, to change and to run again."""
    made = Project(shutil.copytree(_finished.folder, tmp_path / "copy"), data_folder)
    made.output = _finished.output
    return made
