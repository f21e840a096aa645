"""Where there is nothing but torch, torchvision and timm, the benchmarks measure the same."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dmlbench import settings
from dmlbench.datasets.pack import pack
from dmlbench.datasets.store import Store

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MISSING = """
import sys
from importlib.machinery import PathFinder

NAMES = set("pydantic pyarrow pandas faiss scipy sklearn pytorch_metric_learning".split())

class Bare(PathFinder):
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in NAMES else PathFinder.find_spec(name, path, target)

    def find_distributions(context):
        named = (context.name or "").replace("-", "_")
        return () if named in NAMES else PathFinder.find_distributions(context)

sys.meta_path = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.fixture(scope="module")
def bare():
    spec = importlib.util.spec_from_file_location("bare", BENCHMARKS / "bare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path):
    """Run a benchmark where those libraries are missing, in the processes that it starts too."""
    (tmp_path / "missing").mkdir()
    (tmp_path / "missing" / "sitecustomize.py").write_text(MISSING)
    paths = [str(tmp_path / "missing"), str(BENCHMARKS.parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}

    def run(script, *options):
        command = [sys.executable, str(BENCHMARKS / script), *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("Recipe", {}),
        ("Recipe", {"epochs": 3, "augmentation": {"flip": False}}),
        ("Backbone", {"type": "resnet18", "image_size": 64}),
        ("Dataset", {"type": "csv"}),
    ],
)
def test_settings_without_pydantic_are_those_with_it(bare, model, values):
    def plain(value):
        return (
            {k: plain(v) for k, v in vars(value).items()} if hasattr(value, "__dict__") else value
        )

    expected = getattr(settings, model)(**values).model_dump()
    if "augmentation" in values:
        values = values | {"augmentation": bare.settings("Augmentation", **values["augmentation"])}
    assert plain(bare.settings(model, **values)) == expected


def test_a_misspelt_setting_is_refused(bare):
    with pytest.raises(TypeError, match="Recipe has no epoch"):
        bare.settings("Recipe", epoch=3)


@pytest.mark.parametrize("form", ["pixels", "jpeg"])
def test_images_of_a_benchmark_are_those_of_a_packed_store(bare, tmp_path, monkeypatch, form):
    monkeypatch.setattr(bare, "DIFFERENT", 5)
    bare.make(tmp_path, 12, (40, 30), 3, 20, form)
    made = bare.Made(tmp_path)
    files = sorted((tmp_path / "train").rglob("*.jpg"), key=lambda path: int(path.stem))
    assert len(files) == 12
    lines = [f"{path.relative_to(tmp_path)},train {path.parent.name},train" for path in files]
    for name in ("one", "other"):  # a store has test classes too
        (tmp_path / f"{name}.jpg").write_bytes(files[0].read_bytes())
        lines.append(f"{name}.jpg,test,test")
    (tmp_path / "images.csv").write_text("\n".join(["path,label,split", *lines]))
    options = {"file": str(tmp_path / "images.csv"), "channels": 3}
    pack("csv", 20, tmp_path / "store", tmp_path, options=options, form=form)
    store = Store(tmp_path / "store")
    at = {Path(path).stem: row for row, path in enumerate(store.index["path"])}
    for row in range(12):
        assert np.array_equal(made[row], store[at[str(row)]])
        assert np.array_equal(made.sizes[row], store.sizes[at[str(row)]])
    assert not np.array_equal(made[0], made[1])
    assert np.array_equal(made[0], made[5])


def test_test_classes_are_others_than_those_of_training(bare, tmp_path, monkeypatch):
    monkeypatch.setattr(bare, "DIFFERENT", 3)
    bare.make(tmp_path, 100, (20, 20), 1, 10, files=False, times=3)
    made = bare.Made(tmp_path)
    train, test = made.split("train"), made.split("test")
    assert len(train.rows) == 300
    assert np.array_equal(made[train.rows[0]], made[train.rows[100]])
    assert np.array_equal(train.labels[:100], train.labels[200:])
    assert len(test.rows) == bare.TEST
    assert not set(train.class_names) & set(test.class_names)
    assert sorted({*train.labels}) == [0, 1]
    assert sorted({*test.labels}) == [0, 1]


def test_what_stands_in_for_a_library_says_so_when_it_is_called(bare, monkeypatch):
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    bare.stand_in("numpy", "no_such_library", "no_such_library.part")
    assert sys.modules["numpy"] is np
    assert not bare.there("no_such_library")
    from no_such_library.part import function

    with pytest.raises(ModuleNotFoundError, match=r"no_such_library\.part\.function"):
        function(1)


@pytest.mark.slow
def test_the_training_is_measured_where_there_is_torch_and_timm_alone(run):
    options = ["--images", "1120", "--window", "1", "--rounds", "1"]
    code, table, errors = run("training.py", *options)
    assert code == 0, errors
    assert "pytorch-metric-learning missing" in table
    for way in ("dmlbench", "limit: one resident batch", "peer: ImageFolder, DataLoader"):
        assert f"\n| {way} | " in table


def test_losses_are_measured_without_their_peers(run):
    code, table, errors = run("losses.py", "--classes", "50", "--rounds", "1")
    assert code == 0, errors
    for loss in ("htl", "hpl", "softtriple", "rll"):
        assert f"\n| {loss} | " in table
    assert "| Proxy Anchor | " in table
    assert "**no**" not in table
