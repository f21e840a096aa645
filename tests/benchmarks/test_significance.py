"""The benchmark of the statistics, in miniature."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/significance.py"


@pytest.mark.slow
def test_it_prints_the_rates_of_both_questions_and_the_cost_of_a_study():
    size = ["--losses", "3", "--seeds", "3", "--queries", "600", "--classes", "40"]
    command = [sys.executable, str(SCRIPT), "--studies", "4", *size]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == (2 + 5) + (2 + 24) + (2 + 1)  # each table has a head and a rule
    assert rows[2][:3] == ["| 2", "all equal", "any pair"]
    assert rows[-1][0].startswith("| 3 losses x 3 seeds x 600 queries, 40 classes")
    assert "**missed**" not in rows[-1][-1]
