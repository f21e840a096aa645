"""The size of models, counted without numbers."""

import pytest

from dmlbench.planning.model_size import ModelSize, count_model, model_sizes, size_spec
from dmlbench.study.study import check_study
from dmlbench.utils import discovery
from dmlbench.utils.errors import BrokenInstallation


def test_a_known_model_has_its_published_number_of_parameters_and_operations():
    size = count_model({"type": "resnet18", "dim": 512, "image_size": 224}, None, 3)
    # torchvision: 11.69 million with a classifier of 1000 classes, and 1.81 billion products
    assert size.parameters == 11_689_512 - 1000 * 513 + 512 * 513
    assert size.operations == pytest.approx(2 * 1.81e9, rel=0.01)
    assert size.features == 512
    first = 64 * 112 * 112  # the largest output, which three layers have
    assert 3 * first < size.activations < 15 * first


def test_a_larger_image_has_more_operations_and_no_more_parameters():
    small, large = (
        count_model({"type": "test_resnet", "dim": 16, "image_size": side}, None, 3)
        for side in (32, 64)
    )
    assert large.parameters == small.parameters
    assert large.operations == pytest.approx(4 * small.operations, rel=0.01)


def test_a_step_with_a_frozen_trunk_has_a_head_alone():
    model = {"type": "resnet18", "dim": 100, "image_size": 64, "trunk": "frozen"}
    size = count_model(model, None, 3)
    assert size == ModelSize(512 * 100 + 100, 100, 2 * 512 * 100, 512)


@pytest.fixture
def runs(tiny):
    tiny["plan"]["backbones"] = ["tiny", "large"]
    tiny["backbones"]["large"] = {"type": "test_resnet", "dim": 16, "image_size": 64}
    return [*check_study(tiny, "tiny").runs.values()]


def test_each_model_is_counted_once_in_another_process_and_remembered(runs, monkeypatch, tmp_path):
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path))
    sizes = model_sizes(runs)
    assert sizes == {
        size_spec(run): count_model(
            {"type": "test_resnet", "dim": 16, "image_size": run.model.image_size}, None, 1
        )
        for run in runs
        if run.uses_model
    }
    assert len(sizes) == 2
    monkeypatch.setattr(discovery, "_run", lambda *_: pytest.fail("it was asked again"))
    assert model_sizes(runs) == sizes
    assert all(isinstance(size, ModelSize) for size in sizes.values())


def test_controls_without_a_model_ask_nothing(runs, monkeypatch):
    monkeypatch.setattr(discovery, "_run", lambda *_: pytest.fail("it was asked"))
    assert model_sizes(run for run in runs if not run.uses_model) == {}


def test_a_model_that_cannot_be_built_here_has_no_known_size(runs, monkeypatch, tmp_path):
    def fail(*_):
        raise BrokenInstallation("no torch")

    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(discovery, "_run", fail)
    assert model_sizes(runs) == {}
