"""What is installed is asked once; an installation that is broken is told how to be mended."""

import pytest

from dmlbench import installed


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DMLBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(installed, "_REGISTER", "")  # imports timm
    installed.timm_models.cache_clear()
    yield tmp_path
    installed.timm_models.cache_clear()


def test_timm_is_imported_once_for_all_processes(cache, monkeypatch):
    monkeypatch.setattr(installed, "_LIST_MODELS", 'print(\'["resnet18", "resnet18.a1_in1k"]\')')
    assert installed.timm_models() == {"resnet18", "resnet18.a1_in1k"}
    monkeypatch.setattr(installed, "_LIST_MODELS", "raise SystemExit('asked again')")
    installed.timm_models.cache_clear()
    assert installed.timm_models() == {"resnet18", "resnet18.a1_in1k"}


def test_a_torchvision_of_another_torch_is_named_with_the_fix_and_asked_again(cache, monkeypatch):
    broken = "raise RuntimeError('operator torchvision::nms does not exist')"
    monkeypatch.setattr(installed, "_LIST_MODELS", broken)
    with pytest.raises(installed.BrokenInstallation) as caught:
        installed.timm_models()
    message = str(caught.value)
    assert "operator torchvision::nms does not exist" in message
    assert "pip install --force-reinstall torch torchvision" in message
    assert "torch 2" in message
    monkeypatch.setattr(installed, "_LIST_MODELS", "print('[\"resnet18\"]')")
    assert installed.timm_models() == {"resnet18"}


@pytest.mark.parametrize("content", ["", "torn", None])
def test_a_cache_that_is_damaged_or_cannot_be_written_is_done_without(cache, monkeypatch, content):
    monkeypatch.setattr(installed, "_LIST_MODELS", "print('[\"resnet18\"]')")
    if content is None:
        monkeypatch.setenv("DMLBENCH_CACHE", "/proc/nowhere")
    else:
        installed.timm_models()
        for file in cache.glob("timm-*.json"):
            file.write_text(content)
        installed.timm_models.cache_clear()
    assert installed.timm_models() == {"resnet18"}
