"""The benchmark of many runs, with few: it measures each command, and drives the whole workflow."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SCRIPT = Path(__file__).parents[2] / "benchmarks/many_runs.py"


@pytest.mark.slow
def test_it_prints_a_row_for_each_command_and_one_submission_for_each_run(tmp_path):
    axes = ["--datasets", "1", "--backbones", "1", "--losses", "2", "--seeds", "2"]
    command = [sys.executable, str(SCRIPT), *axes, "--workflow", "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split(" | ")[0] for line in done.stdout.splitlines() if line.startswith("| ")]
    assert rows[1:] == [
        "| snakemake -n, nothing is there",
        "| dmlbench status, nothing is there",
        "| dmlbench leaderboard",
        "| dmlbench status",
        "| dmlbench plan --diff",
        "| snakemake -n, everything is there",
        "| snakemake, with jobs that end at once",
    ]
    assert done.stdout.startswith("7 runs.")
    assert (tmp_path / "results/many/verdict.txt").is_file()
    assert len([*tmp_path.glob("results/many/runs/*/*/*/*/metrics.json")]) == 7
    assert "submissions: 7" in done.stdout


@pytest.mark.slow
def test_a_study_is_planned_as_if_nothing_were_there(tmp_path, tiny):
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(tiny | {"tuning": {"trials": 3, "folds": 2}}))
    command = [sys.executable, str(SCRIPT), "--study", str(tmp_path / "my.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split(" | ")[0] for line in done.stdout.splitlines() if line.startswith("| ")]
    assert rows[1:] == [
        "| snakemake -n, nothing is there",
        "| dmlbench plan, nothing is there",
        "| dmlbench plan --diff, nothing is there",
        "| dmlbench status, nothing is there",
    ]
    assert done.stdout.startswith("3 runs.")
    assert "trials: 6; tuned cells: 2." in done.stdout
