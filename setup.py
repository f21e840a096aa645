"""Puts the workflow, which is at the top of the source tree, into the wheel: dmlbench/shipped/."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PARTS = ("Snakefile", "workflow", "profiles", "config", "envs")


class BuildPackage(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:  # then the workflow is used where it is
            shipped = Path(self.build_lib, "dmlbench/shipped")
            shutil.rmtree(shipped, ignore_errors=True)
            for part in PARTS:
                copy(Path(part), shipped / part)


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.lock", "*.txt"))
    else:
        shutil.copy2(source, target)


setup(cmdclass={"build_py": BuildPackage})
