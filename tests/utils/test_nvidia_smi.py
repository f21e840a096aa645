"""nvidia-smi gives its lines, or one line that says why not."""

import pytest

from dmlbench.utils import nvidia_smi as module
from dmlbench.utils.nvidia_smi import NvidiaSmiFailed, nvidia_smi


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """Let a made nvidia-smi run this script."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def install(script):
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return install


def test_its_lines_are_the_answer(answer):
    answer('echo "GPU 0: $1"; echo "GPU 1"')
    assert nvidia_smi("-L") == ["GPU 0: -L", "GPU 1"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo; echo Failed to initialize NVML; echo more; exit 18", "Failed to initialize NVML"),
        ("echo Segmentation fault >&2; exit 139", "Segmentation fault"),
        ("exit 9", "nvidia-smi ended with 9"),
        ("exec sleep 60", r"nvidia-smi did not answer in 0 s"),
    ],
)
def test_a_failure_is_one_line(answer, monkeypatch, script, reason):
    monkeypatch.setattr(module, "SECONDS", 0.4)
    answer(script)
    with pytest.raises(NvidiaSmiFailed, match=f"^{reason}$") as failure:
        nvidia_smi("-L")
    assert not failure.value.is_missing
    assert not failure.value.finds_no_gpu


def test_a_missing_one_and_a_machine_without_gpus_are_known(answer, monkeypatch):
    answer("echo No devices were found; exit 6")
    with pytest.raises(NvidiaSmiFailed) as failure:
        nvidia_smi("-L")
    assert failure.value.finds_no_gpu
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NvidiaSmiFailed) as failure:
        nvidia_smi("-L")
    assert failure.value.is_missing
