"""The benchmark of the page, and how much of a page each of its panels may need."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/page.py"


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("page_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_page_of_2500_runs_is_small(benchmark):
    """Its size depends on panels and losses, and hardly on seeds: two of its twenty panels."""
    results = benchmark.made_up(datasets=2, backbones=1, losses=25, seeds=2)
    page = benchmark.compose_page(results)
    assert "<h2>Overview</h2>" in page
    assert 10 * len(page.encode()) < benchmark.MOST_BYTES


@pytest.mark.slow
def test_it_prints_a_row_for_each_measurement():
    axes = ["--datasets", "2", "--backbones", "2", "--losses", "3", "--seeds", "2"]
    command = [sys.executable, str(SCRIPT), *axes]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("36 runs.")
    rows = [line.split(" | ")[0] for line in done.stdout.splitlines() if line.startswith("| ")]
    assert rows[1] == "| page without pictures"
    assert rows[2:] in ([], ["| the document is read", "| its script has run"])
