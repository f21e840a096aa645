"""The wheel, installed into an empty environment, runs the demo far from the source tree."""

import csv
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).parent / "uv"
LOCK = ROOT / "envs/requirements.lock"
SHIPPED = ("Snakefile", "workflow", "profiles", "config", "envs")


def run(*command, **options):
    """The output of a command that must succeed."""
    done = subprocess.run(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def install(wheel, environment, folder):
    """Install `wheel` and what it depends on, in the versions of the environment of the tests.

    What that one does not have, as the CUDA libraries on a machine without a GPU, is left out.
    """
    installed = run(UV, "pip", "freeze", "--python", sys.executable)
    versions = re.findall(r"^([\w.-]+)==(\S+)$", installed, re.MULTILINE)
    names = {name.lower() for name, _ in versions}
    missing = {*re.findall(r"^([a-z0-9_.-]+)==", LOCK.read_text(), re.MULTILINE)} - names
    lists = {
        "constraints": [f"{name}=={version}" for name, version in versions],
        "excludes": sorted(missing),
        "overrides": ["faiss-cpu"] if "faiss-gpu" in missing else [],
    }
    command = [UV, "pip", "install", "--python", environment, wheel]
    for option, lines in lists.items():
        (folder / option).write_text("\n".join(lines))
        command += [f"--{option}", folder / option]
    command += ["--torch-backend", "cpu"] if "+cpu" in installed else []
    done = subprocess.run([*map(str, command)], stderr=subprocess.PIPE, text=True)
    if done.returncode and "Failed to fetch" in done.stderr:
        pytest.skip(f"no package index, and not in uv's cache: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_installed_wheel_runs_the_demo_in_any_folder(tmp_path):
    if not UV.exists():
        pytest.skip(f"{UV} is missing: `make test-slow` installs it")
    run(UV, "build", "--quiet", "--no-build-isolation", "--out-dir", tmp_path / "dist", ROOT)
    (wheel,) = tmp_path.glob("dist/*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    shipped = {name.removeprefix("dmlbench/shipped/") for name in names if "/shipped/" in name}
    assert shipped == {
        str(path.relative_to(ROOT))
        for part in SHIPPED
        for path in [ROOT / part, *(ROOT / part).rglob("*")]
        if path.is_file() and path.suffix in ("", ".smk", ".yaml", ".sh", ".rst", ".json")
    }

    run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "environment")
    install(wheel, tmp_path / "environment", tmp_path)
    folder = tmp_path / "far away"
    folder.mkdir()
    program = tmp_path / "environment/bin/dmlbench"
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DMLBENCH_", "PYTHON", "VIRTUAL_ENV"))
    }

    def dmlbench(*arguments):
        return run(program, *arguments, cwd=folder, env=variables)

    one_seed = ("run", "--demo", "--", "--config", "plan={seeds: [0]}")  # three take five minutes
    dmlbench(*one_seed)
    results = folder / "results/demo"
    with (results / "leaderboard/leaderboard.csv").open(newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["metric"] == "recall@1"]
    scores = {(row["loss"], row["seed"]): float(row["value"]) for row in rows}
    assert len(scores) == 11
    assert min(score for (loss, _), score in scores.items() if "control" not in loss) > 0.8
    assert (results / "verdict.txt").is_file()
    assert "Nothing to be done" in dmlbench(*one_seed)
    assert "demo: 11 runs" in dmlbench("status", "demo")
