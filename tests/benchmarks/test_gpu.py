"""The command for GPU machines runs all its parts, and reports those that fail."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)}
SCRIPTS = {
    "about.py": "print('2 cores\\nMade GPU 200')",
    "broken.py": "print('| half |'); raise ValueError('no such kernel')",
    "slow.py": "import time; print('| begun |', flush=True); time.sleep(60)",
    "whole.py": "import sys; print('| table |', *sys.argv[1:])",
}


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu", BENCHMARKS / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "out")])
    return module


def test_the_limits_of_all_parts_are_less_than_8_minutes(gpu):
    assert sum(part.limit for part in gpu.PARTS) <= 60 * gpu.MINUTES < 8 * 60


@pytest.mark.slow
def test_the_script_of_every_part_accepts_its_options(gpu):
    for part in gpu.PARTS:
        script, *options = part.command.split()
        command = [sys.executable, str(BENCHMARKS / script), *options, "--device", "cuda", "--help"]
        subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)


@pytest.mark.slow
def test_the_checks_of_a_gpu_pass_on_a_cpu():
    for check in ("same_batches", "resumed", "same_clusters", "no_waits"):
        command = [sys.executable, str(BENCHMARKS / "smoke.py"), check, "--device", "cpu"]
        subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)


def test_a_part_that_fails_or_is_too_slow_does_not_stop_the_others(
    gpu, tmp_path, monkeypatch, capfd
):
    for name, code in SCRIPTS.items():
        (tmp_path / name).write_text(code)
    parts = [gpu.Part(n, f"{n}.py", 30, results=n) for n in ("broken", "slow", "whole")]
    parts[1] = parts[1]._replace(limit=3)
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    monkeypatch.setattr(gpu, "PARTS", (gpu.Part("machine", "about.py", 30), *parts))
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 1
    tables = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    summary = tables.pop("gpu-made-gpu-200.md")
    assert tables == {
        "broken-made-gpu-200.md": "| half |\n\nIncomplete: ValueError: no such kernel.\n",
        "slow-made-gpu-200.md": "| begun |\n\nIncomplete: stopped after 3 s.\n",
        "whole-made-gpu-200.md": "| table | --device cuda\n",
    }
    statuses = [line.split(" | ")[1] for line in summary.splitlines()[2:]]
    assert statuses == ["ok", "FAILED", "FAILED", "ok"]
    assert "Traceback" in capfd.readouterr().err


def test_without_a_gpu_it_stops_with_the_reason(gpu, tmp_path, monkeypatch):
    (tmp_path / "about.py").write_text("raise RuntimeError('Found no NVIDIA driver')")
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    monkeypatch.setattr(gpu, "PARTS", (gpu.Part("machine", "about.py", 30),))
    with pytest.raises(SystemExit, match=r"torch can use no cuda here: .*no NVIDIA driver"):
        gpu.main()
