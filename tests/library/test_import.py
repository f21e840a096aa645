"""`import dmlbench` is light, and its functions are found by editors, `dir` and mypy."""

import os
import subprocess
import sys

import pytest

import dmlbench
from dmlbench.utils.modules import PACKAGE

SNIPPET = """
import numpy as np
import torch
from torch.utils.data import DataLoader

import dmlbench

dataset = dmlbench.load_store("store", "train", transform=lambda image: image.float())
loss = dmlbench.create_loss("htl", dataset.num_classes, 8, dataset.parents, levels=4)
for images, labels in DataLoader(dataset, batch_size=8):
    loss(images, labels)
scores: dict[str, float] = dmlbench.score(torch.zeros(4, 8), np.arange(4), levels={"a": [1, 2, 3]})
run: dmlbench.TrainedRun = dmlbench.train("my.yaml", "a/b/c/seed0")
other = dmlbench.train(dataset="glyphs", backbone={"type": "resnet18"}, loss="htl", seed=1)
names: list[str] = dmlbench.list_losses()
print(run.metrics["recall@1"] + scores["nmi"], other.history[0]["loss"], other.embeddings.shape)
"""
MISTAKES = {
    "dmlbench.score(labels=[1, 2])": "call-arg",
    'dmlbench.load_store("store", split=1)': "arg-type",
    'dmlbench.train("my.yaml", loss="htl")': "call-overload",
    "dmlbench.sccore": "attr-defined",
}


def test_importing_the_package_imports_neither_numpy_nor_torch():
    code = "import sys, dmlbench; dir(dmlbench); print({'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_every_public_name_is_there_and_has_a_docstring():
    assert set(dmlbench.__all__) <= set(dir(dmlbench))
    for name in dmlbench.__all__:
        assert getattr(dmlbench, name).__doc__
    namespace = {}
    exec("from dmlbench import *", namespace)
    assert namespace.keys() >= set(dmlbench.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'dmlbench' has no attribute 'sccore'"):
        _ = dmlbench.sccore


@pytest.mark.slow
def test_mypy_sees_the_types_of_the_library(tmp_path):
    lines = [f"{text}  # type: ignore[{code}]" for text, code in MISTAKES.items()]
    (tmp_path / "snippet.py").write_text(SNIPPET + "\n".join(lines) + "\n")
    cache = PACKAGE.parent / ".mypy_cache/user"
    command = [sys.executable, "-m", "mypy", "--warn-unused-ignores", "--ignore-missing-imports"]
    command += ["--follow-imports=silent", "--cache-dir", str(cache), "snippet.py"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "MYPYPATH": str(PACKAGE.parent)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
