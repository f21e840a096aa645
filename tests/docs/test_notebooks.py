"""The notebooks run on a CPU from an empty folder, and are stored without outputs."""

import json
import os
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS = 300
"""Limit of one cell on a busy machine; on two idle cores each notebook takes less than a minute."""


def test_the_notebooks_that_the_page_names_are_there():
    page = (ROOT / "docs/library.md").read_text("utf-8")
    assert [path.name for path in NOTEBOOKS] == ["score_and_compare.ipynb", "train_one_run.ipynb"]
    assert all(f"`{path.name}`" in page for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    codes = [cell for cell in cells if cell["cell_type"] == "code"]
    assert codes
    assert all((cell["outputs"], cell["execution_count"]) == ([], None) for cell in codes)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_an_empty_folder(path, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.delenv("DMLBENCH_DATA", raising=False)
    notebook = nbformat.read(path, as_version=4)
    began = time.monotonic()
    client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": tmp_path}})
    client.execute(env={**os.environ})
    print(f"{path.name}: {time.monotonic() - began:.0f} s")
    errors = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "error" or "Error" in output.get("text", "")
    ]
    assert errors == []
