"""With nothing but torch, torchvision and timm, the benchmarks measure the same."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from dmlbench.datasets.store.pack import pack
from dmlbench.datasets.store.reader import Store
from dmlbench.study import backbone_settings, settings

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bare():
    spec = importlib.util.spec_from_file_location("bare", BENCHMARKS / "bare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("Recipe", {}),
        ("Recipe", {"epochs": 3, "augmentation": {"flip": False}}),
        ("Backbone", {"type": "resnet18", "image_size": 64}),
        ("Dataset", {"type": "csv"}),
    ],
)
def test_settings_without_pydantic_equal_those_with_it(bare, model, values):
    def plain(value):
        return (
            {k: plain(v) for k, v in vars(value).items()} if hasattr(value, "__dict__") else value
        )

    module = backbone_settings if model == "Backbone" else settings
    expected = getattr(module, model)(**values).model_dump()
    if "augmentation" in values:
        values = values | {"augmentation": bare.settings("Augmentation", **values["augmentation"])}
    assert plain(bare.settings(model, **values)) == expected


def test_a_misspelt_setting_is_refused(bare):
    with pytest.raises(TypeError, match="Recipe has no epoch"):
        bare.settings("Recipe", epoch=3)


@pytest.mark.parametrize("form", ["pixels", "jpeg"])
def test_synthetic_images_equal_those_of_a_packed_store(bare, tmp_path, monkeypatch, form):
    monkeypatch.setattr(bare, "DISTINCT_IMAGES", 5)
    bare.make_store(tmp_path, 12, (40, 30), 3, 20, form=form)
    synthetic = bare.SyntheticStore(tmp_path)
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
    row_of = {Path(path).stem: row for row, path in enumerate(store.index["path"])}
    for row in range(12):
        assert np.array_equal(synthetic[row], store[row_of[str(row)]])
        assert np.array_equal(synthetic.sizes[row], store.sizes[row_of[str(row)]])
    assert not np.array_equal(synthetic[0], synthetic[1])
    assert np.array_equal(synthetic[0], synthetic[5])


def test_the_classes_of_the_test_are_not_those_of_the_training(bare, tmp_path, monkeypatch):
    monkeypatch.setattr(bare, "DISTINCT_IMAGES", 3)
    bare.make_store(tmp_path, 100, (20, 20), 1, 10, with_files=False, repeat=3)
    synthetic = bare.SyntheticStore(tmp_path)
    train, test = synthetic.split("train"), synthetic.split("test")
    assert len(train.rows) == 300
    assert np.array_equal(synthetic[train.rows[0]], synthetic[train.rows[100]])
    assert np.array_equal(train.labels[:100], train.labels[200:])
    assert len(test.rows) == bare.TEST_IMAGES
    assert not set(train.class_names) & set(test.class_names)
    assert sorted({*train.labels}) == [0, 1]
    assert sorted({*test.labels}) == [0, 1]


def test_a_call_of_a_missing_library_is_an_error_with_its_name(bare, monkeypatch):
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    bare.replace_missing("numpy", "no_such_library", "no_such_library.part")
    assert sys.modules["numpy"] is np
    assert not bare.is_installed("no_such_library")
    from no_such_library.part import function

    with pytest.raises(ModuleNotFoundError, match=r"no_such_library\.part\.function"):
        function(1)
