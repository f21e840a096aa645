"""The benchmark of `dmlbench.score` compares equal numbers, and prints a row for each container."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/score.py"


@pytest.mark.slow
def test_it_prints_the_ratio_for_an_array_and_a_tensor():
    command = [sys.executable, str(SCRIPT), "--images", "1000", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line for line in done.stdout.splitlines() if line.startswith("| a")]
    assert [row.split(" | ")[0] for row in rows] == ["| an array", "| a tensor"]
