"""torch.compile changes the speed of a training, and neither its results nor their names."""

import os
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from dmlbench.backbones.model import EmbeddingModel
from dmlbench.datasets.store.part import Part
from dmlbench.study.backbone_settings import Backbone
from dmlbench.study.settings import Recipe
from dmlbench.study.study import check_study
from dmlbench.training import train as training
from dmlbench.training.embedding import embed
from dmlbench.training.execution import compiles
from dmlbench.training.inputs import open_inputs
from dmlbench.training.process import keep_kernels
from dmlbench.training.time_limit import Stopped
from dmlbench.training.train import train

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "asked", "expected"),
    [("cuda", True, True), ("cuda", False, False), ("cpu", True, False)],
)
def test_a_training_is_compiled_on_a_gpu_if_the_recipe_asks_for_it(device, asked, expected):
    assert compiles(Recipe(gpu_compile=asked), torch.device(device)) is expected


def test_a_compiled_training_equals_the_plain_one_and_continues_as_one(
    tiny, glyphs, tmp_path, monkeypatch, weights_file
):
    """It runs only the graphs: Inductor would compile C++ for a minute."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    tiny["plan"]["losses"] = ["proxy_anchor"]
    tiny["recipe"]["warmup_steps"] = 2
    tiny["backbones"]["tiny"]["pretrained"] = str(weights_file)  # so batch norm is frozen
    run = check_study(tiny, "tiny").runs["letters/tiny/proxy_anchor/seed0"]
    rows = glyphs.split("test", run.data.part).rows
    plain = train(
        run, glyphs, glyphs.split("train", Part(0.1)), CPU, tmp_path / "plain", lambda: None
    )[0]

    asked = iter(range(10))
    stop = lambda: "stopped" if next(asked) == 6 else None  # noqa: E731
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(training, "compiles", lambda *_: True)
    with pytest.raises(Stopped):
        train(run, glyphs, glyphs.split("train", Part(0.1)), CPU, tmp_path / "both", stop)
    assert counters["stats"]["unique_graphs"] == 2  # in the warm-up, and after it
    assert not counters["graph_break"]
    monkeypatch.setattr(training, "compiles", lambda *_: False)
    both = train(
        run, glyphs, glyphs.split("train", Part(0.1)), CPU, tmp_path / "both", lambda: None
    )[0]
    convolutions = [m for m in both.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(convolution.weight.grad.any() for convolution in convolutions)
    assert [*both.state_dict()] == [*plain.state_dict()]
    expected, embeddings = (
        embed(m.eval(), open_inputs(run, glyphs), rows, CPU) for m in (plain, both)
    )
    assert np.abs(embeddings - expected).max() < 1e-3 * np.abs(expected).max()


def test_a_compiled_training_in_chunks_has_a_graph_for_each_size_and_pass(
    tiny, glyphs, tmp_path, monkeypatch, weights_file
):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    tiny["plan"]["losses"] = ["proxy_anchor"]
    tiny["recipe"] |= {"warmup_steps": 2, "chunk": 20, "lr": 1e-4}
    tiny["backbones"]["tiny"]["pretrained"] = str(weights_file)
    run = check_study(tiny, "tiny").runs["letters/tiny/proxy_anchor/seed0"]
    rows = glyphs.split("test", run.data.part).rows
    split = glyphs.split("train", Part(0.1))
    plain = train(run, glyphs, split, CPU, tmp_path / "plain", lambda: None)[0]
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(training, "compiles", lambda *_: True)
    compiled = train(run, glyphs, split, CPU, tmp_path / "compiled", lambda: None)[0]
    # chunks of 20 and of 8: without a graph of autograd, in the warm-up, and after it
    assert counters["stats"]["unique_graphs"] == 6
    assert not counters["graph_break"]
    inputs = open_inputs(run, glyphs)
    expected, embeddings = (embed(m.eval(), inputs, rows, CPU) for m in (plain, compiled))
    assert np.abs(embeddings - expected).max() < 1e-3 * np.abs(expected).max()


def test_a_trunk_in_bfloat16_and_its_head_in_float32_are_one_graph():
    backbone = Backbone(type="test_resnet", dim=12, image_size=96, head="low_mid_high")
    model = EmbeddingModel(backbone, Recipe(freeze_bn=True), 3)
    compiled = torch.compile(model, dynamic=False, fullgraph=True, backend="aot_eager")
    images = torch.rand(4, 3, 96, 96)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embeddings, expected = compiled(images), model(images)
    assert embeddings.dtype == torch.float32
    assert torch.equal(embeddings, expected)


def test_kernels_are_kept_if_the_folder_can_be_written_and_the_user_sets_no_other(
    tmp_path, monkeypatch
):
    name = "TORCHINDUCTOR_CACHE_DIR"
    monkeypatch.setenv(name, str(tmp_path / "mine"))
    keep_kernels(tmp_path / "compiled")
    assert os.environ[name] == str(tmp_path / "mine")
    monkeypatch.delenv(name)
    (tmp_path / "file").touch()
    keep_kernels(tmp_path / "file/compiled")
    assert name not in os.environ
    # as in the folder of another user; root may write everywhere
    monkeypatch.setattr(os, "access", lambda *_: False)
    keep_kernels(tmp_path / "compiled")
    assert name not in os.environ
    monkeypatch.undo()
    monkeypatch.setenv(name, "")  # so that the end of the test removes it
    monkeypatch.delenv(name)
    keep_kernels(tmp_path / "compiled")
    assert os.environ[name] == str(tmp_path / "compiled")


SCRIPT = """
import sys
from pathlib import Path
from dmlbench.training.process import keep_kernels
keep_kernels(Path(sys.argv[1]))
import torch
from torch._dynamo.utils import counters
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU(), torch.nn.Linear(8, 4))
images = torch.rand(5, 8)
value = torch.compile(net, dynamic=False)(images).square().sum()
value.backward()
assert torch.allclose(value, net(images).square().sum())
print(counters["inductor"]["fxgraph_cache_miss"], counters["inductor"]["fxgraph_cache_hit"])
"""


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_another_process_uses_the_kernels(tmp_path):
    environment = {**os.environ}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    counts = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert counts == [["2", "0"], ["0", "2"]]
