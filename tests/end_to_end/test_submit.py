"""`dmlbench submit` without a cluster: the driver starts a killed Snakemake again."""

import os
import signal
import subprocess
import sys

import pytest

from ..project import STUDY


@pytest.mark.slow
def test_a_killed_snakemake_is_started_again_until_the_study_is_complete(project, tiny):
    tiny["recipe"]["epochs"] = 25
    project.write(tiny)
    driver = subprocess.Popen(
        [sys.executable, "-m", "dmlbench", "submit", "study.yaml", "--profile", "default"],
        cwd=project.folder,
        env=project.environment | {"PYTHONPATH": str(project.folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    trainer = project.wait_for_step("proxy_anchor", 20, timeout=300)
    assert "`dmlbench submit` works on it: process " in project.dmlbench("status", "study.yaml")
    lock = (project.folder / STUDY / "lock").read_text()
    os.kill(int(lock.split()[1]), signal.SIGKILL)
    os.kill(trainer, signal.SIGKILL)
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, output
    assert "Snakemake ended with exit code -9, and the study is not complete" in output
    assert "3 runs: 3 done" in output
    assert (
        "resumed at step"
        in (
            project.folder / "results/tiny/runs/letters/tiny/proxy_anchor/seed0/log.txt"
        ).read_text()
    )
    assert not (project.folder / STUDY / "driver.json").exists()
    assert project.planned() == {}
