"""Another process asks timm. If timm does not import, the error says how to repair it."""

import pytest

from dmlbench.backbones import catalogue
from dmlbench.utils.errors import BrokenInstallation

MODELS = """
def list_models():
    return ["resnet18", "bare"]
def list_pretrained():
    return ["resnet18.a1_in1k"]
class Config:
    architecture, tag, has_weights = "resnet18", "a1_in1k", True
def get_pretrained_cfg(name, allow_unregistered):
    return None if name == "bare" else Config
"""
BROKEN = "raise RuntimeError('operator torchvision::nms does not exist')\n"


@pytest.fixture
def write_timm(tmp_path, monkeypatch):
    """Write a timm that the other process imports in place of the installed one."""
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(catalogue, "own_backbones", lambda: ())
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "timm.py").write_text(text)
        catalogue.timm_models.cache_clear()
        catalogue.timm_weights.cache_clear()

    yield write
    catalogue.timm_models.cache_clear()
    catalogue.timm_weights.cache_clear()


def test_the_answers_about_models_and_weights_are_remembered(write_timm):
    write_timm(MODELS)
    assert catalogue.timm_models() == {"resnet18", "bare", "resnet18.a1_in1k"}
    names = ("resnet18", "resnet18.a1_in1k")
    assert catalogue.timm_weights() == dict.fromkeys(names, "resnet18.a1_in1k")
    write_timm(BROKEN)
    assert "resnet18" in catalogue.timm_models()
    assert "resnet18" in catalogue.timm_weights()


def test_a_timm_that_does_not_import_is_reported_with_the_fix_and_asked_again(write_timm):
    write_timm(BROKEN)
    with pytest.raises(BrokenInstallation) as caught:
        catalogue.timm_models()
    message = str(caught.value)
    assert "operator torchvision::nms does not exist" in message
    assert "pip install --force-reinstall torch torchvision" in message
    assert "torch 2" in message
    write_timm(MODELS)
    assert "resnet18" in catalogue.timm_models()
