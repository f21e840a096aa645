"""Where the workflow is, and the command that starts Snakemake on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dmlbench.utils.errors import BrokenInstallation, WrongEnvironment
from dmlbench.utils.modules import PACKAGE
from dmlbench.utils.text import short_repr

SHIPPED = "shipped"
"""The folder of the package that has the workflow in a wheel; `setup.py` fills it."""


def workflow_folder(package: Path = PACKAGE) -> Path:
    """The folder of the Snakefile and of `config/`: in the wheel, or the top of the source tree.

    Raises:
        BrokenInstallation: the package was copied without its workflow.
    """
    for folder in (package / SHIPPED, package.parent):
        if (folder / "Snakefile").is_file() and (folder / "workflow/rules").is_dir():
            return folder
    problem = "has no Snakefile. Install it with pip from a wheel, or from the source tree."
    raise BrokenInstallation(f"dmlbench in {package} {problem}")


def conda_environment() -> str:
    """The file in `envs/` of the environment for `--sdm conda`: DMLBENCH_CONDA, or that for CPUs.

    Raises:
        WrongEnvironment: there is no such file.
    """
    kind = os.environ.get("DMLBENCH_CONDA") or "cpu"
    kinds = sorted(path.stem for path in (workflow_folder() / "envs").glob("*.yaml"))
    if kind not in kinds:
        raise WrongEnvironment(
            f"DMLBENCH_CONDA: {short_repr(kind)}: it is one of {', '.join(kinds)}."
        )
    return f"{kind}.yaml"


def demo_study() -> Path:
    """The file of the demo study."""
    return workflow_folder() / "config/demo.yaml"


def snakemake_command(study: Path, arguments: Sequence[str]) -> list[str]:
    """The command that runs a study as `snakemake --configfile` does in the source tree.

    Args:
        study: its file.
        arguments: more of Snakemake's. They come first: `--configfile` takes all names after it.
    """
    # -P: a random.py in the user's folder is not Python's
    python = [sys.executable, "-P", "-m", "snakemake"]
    snakefile = workflow_folder() / "Snakefile"
    return [*python, *arguments, "--snakefile", str(snakefile), "--configfile", str(study)]
