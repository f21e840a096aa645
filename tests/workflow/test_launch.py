"""Where the workflow is: at the top of the source tree, or in the package of a wheel."""

import pytest

from dmlbench.utils.errors import BrokenInstallation, WrongEnvironment
from dmlbench.utils.modules import PACKAGE
from dmlbench.workflow.launch import conda_environment, demo_study, workflow_folder


def put_workflow(folder):
    (folder / "workflow/rules").mkdir(parents=True)
    (folder / "Snakefile").touch()


def test_in_the_source_tree_the_workflow_is_used_where_it_is():
    assert workflow_folder() == PACKAGE.parent
    assert demo_study() == PACKAGE.parent / "config/demo.yaml"


def test_a_wheel_has_its_own_workflow_whatever_is_beside_the_package(tmp_path):
    package = tmp_path / "site-packages/dmlbench"
    package.mkdir(parents=True)
    with pytest.raises(BrokenInstallation, match=r"site-packages/dmlbench has no Snakefile"):
        workflow_folder(package)
    (tmp_path / "site-packages/Snakefile").touch()  # of another package
    with pytest.raises(BrokenInstallation):
        workflow_folder(package)
    put_workflow(package / "shipped")
    put_workflow(package.parent / "other")
    assert workflow_folder(package) == package / "shipped"


def test_the_conda_file_is_named_by_the_environment(monkeypatch):
    monkeypatch.delenv("DMLBENCH_CONDA", raising=False)
    assert conda_environment() == "cpu.yaml"
    monkeypatch.setenv("DMLBENCH_CONDA", "gpu")
    assert conda_environment() == "gpu.yaml"
    monkeypatch.setenv("DMLBENCH_CONDA", "cuda")
    with pytest.raises(
        WrongEnvironment, match=r"^DMLBENCH_CONDA: .cuda.: it is one of cpu, gpu\.$"
    ):
        conda_environment()
