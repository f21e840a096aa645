"""The types for the user's own images are compared on the same images."""

import importlib.util
import re
import sys
from pathlib import Path

FILE = Path(__file__).parents[2] / "benchmarks/own_images.py"


def test_a_folder_and_parquet_are_compared_with_a_csv(monkeypatch, capsys, tmp_path):
    spec = importlib.util.spec_from_file_location("own_images", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("DMLBENCH_CORES", "1")
    monkeypatch.setattr(sys, "argv", ["own_images", "--images", "80", "--rounds", "1"])
    module.main()
    rows = re.findall(r"^\| (\w+) \| .* \| ([\d.]*) \|$", capsys.readouterr().out, re.MULTILINE)
    assert rows == [("csv", ""), ("folder", "1.1"), ("parquet", "1.1")]
