"""The benchmark of super-classes compares equal flat metrics, and prints a row for each part."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/graded.py"


@pytest.mark.slow
def test_it_prints_the_ratio_of_all_metrics_and_of_the_ranking():
    command = [sys.executable, str(SCRIPT), "--classes", "60", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split(" | ")[0] for line in done.stdout.splitlines() if line.startswith("| ")]
    assert rows[2:] == ["| all metrics", "| of them the ranking, without k-means"]
