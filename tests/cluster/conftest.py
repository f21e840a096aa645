"""These tests need SLURM and Snakemake's plugin for it: `make test-cluster`.

They are collected only where somebody asks for them, by `-m cluster` or by the name of this folder.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..project import STUDY, Project, copy_project
from .sandbox import PACKAGES, Sandbox, missing_programs

HERE = Path(__file__).parent
REQUIRED = "DMLBENCH_TEST_CLUSTER"
"""Set by `make test-cluster`: then a test that cannot run is an error."""
# Started in a shell's background, this process ignores Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.default_int_handler)  # SLURM is stopped then, too


def pytest_ignore_collect(collection_path, config):
    named = any("cluster" in argument for argument in config.invocation_params.args)
    return None if named else True


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)


def cannot_run():
    """Why the tests of this folder cannot run here; empty if they can."""
    if missing := missing_programs():
        return f"no {', '.join(missing)}: apt-get install --no-install-recommends {PACKAGES}"
    if not importlib.util.find_spec("snakemake_executor_plugin_slurm"):
        return "no snakemake_executor_plugin_slurm: pip install -e .[slurm]"
    return ""


@pytest.fixture
def slurm():
    """A running SLURM with two nodes, each with 4 cores and 2 GPUs that are not there.

    Each test has another one, since it starts in a quarter of a second. At its end, all is stopped
    that ran in it, also after a failure.
    """
    if reason := cannot_run():
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(reason)
    with Sandbox() as sandbox:
        yield sandbox


class ClusterProject(Project):
    """A copy of the project that submits its jobs to the SLURM of the tests."""

    def __init__(self, folder, data_folder, slurm):
        super().__init__(folder, data_folder)
        self.slurm = slurm
        plugin = Path(importlib.util.find_spec("snakemake_executor_plugin_slurm").origin).parents[1]
        path = [HERE / "quick", folder, plugin]
        own = {
            "PATH": f"{Path(sys.executable).parent}:{slurm.environment['PATH']}",
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "PYTHONPYCACHEPREFIX": str(HERE.parents[1] / ".pytest_cache/bytecode"),
            "DMLBENCH_DEVICE": "cpu",
        }
        self.environment |= {"SLURM_CONF": slurm.environment["SLURM_CONF"], **own}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def submit(self, *arguments):
        """A driver of the study, whose output is in submit.txt."""
        with (self.folder / "submit.txt").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "dmlbench", "submit", "study.yaml", *arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def output(self):
        return (self.folder / "submit.txt").read_text(errors="replace")

    def wait_for(self, condition, name, seconds=300):
        """Wait until `condition()` is true; its value."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name}\n{self.output}\n{self.slurm.logs()}")
            time.sleep(0.1)
        return value

    def progress(self, loss):
        """The step that the training of `loss` has reached; -1 before its first one."""
        path = self.folder / STUDY / "state/letters/tiny" / loss / "seed0/progress.json"
        try:
            return json.loads(path.read_text())["step"]
        except (OSError, ValueError):
            return -1

    def jobs(self, *states):
        """Numbers of the jobs in SLURM's queue that were submitted from this folder."""
        lines = self.slurm.queue("%A|%Z", ",".join(states or ("PENDING", "RUNNING")))
        return [line.split("|")[0] for line in lines if line.endswith(f"|{self.folder}")]


@pytest.fixture
def cluster_project(tmp_path, data_folder, tiny, slurm):
    """A project whose `dmlbench submit` submits to the SLURM of the tests."""
    project = ClusterProject(copy_project(tmp_path / "made"), data_folder, slurm)
    project.write(tiny)
    return project
