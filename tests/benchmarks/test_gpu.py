"""The command for GPU machines runs all its parts, and reports those that fail."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dmlbench.utils import gpu_lease
from dmlbench.utils.errors import UnusableGpu

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent)]),
}
FAKES = {
    "fake_machine": "print('- device: Made GPU 200\\nready')",
    "fake_broken": "print('| half |'); raise ValueError('no such kernel')",
    "fake_slow": "import time; print('| begun |'); time.sleep(60)",
    "fake_crash": "import os; print('| lost |'); os.kill(os.getpid(), 11)",
    "fake_whole": "import sys; print('| table |', *sys.argv[1:])",
}


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """The command with made parts, which need no torch, and no GPU to lease."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "gpu", raising=False)
    import gpu

    for name, body in FAKES.items():
        (tmp_path / f"{name}.py").write_text(f"def main():\n    {body}\n")
    monkeypatch.setattr(gpu, "PRELOADED", [])
    monkeypatch.setattr(gpu_lease, "lease_gpu", contextlib.nullcontext)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path / "out")])
    for name in ("PYTHONPATH", "HF_HUB_OFFLINE"):  # it sets them
        monkeypatch.setenv(name, os.environ.get(name, ""))
    yield gpu
    sys.modules.pop("gpu", None)


def parts(gpu, *names, limit=30):
    return tuple(gpu.Part(name, limit, f"fake_{name}") for name in names)


def test_the_limits_of_all_parts_are_less_than_8_minutes(gpu):
    assert sum(part.limit for part in gpu.PARTS) <= 60 * gpu.MINUTES < 8 * 60


def test_a_part_that_fails_crashes_or_is_too_slow_does_not_stop_the_others(
    gpu, tmp_path, monkeypatch, capfd
):
    made = parts(gpu, "machine", "broken", "slow", "crash", "whole")
    made = tuple(p._replace(limit=2) if p.name == "slow" else p for p in made)
    monkeypatch.setattr(gpu, "PARTS", made)
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 1
    (page,) = (tmp_path / "out").iterdir()
    assert page.name == "gpu-made-gpu-200.md"
    text = page.read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][2:7]
    assert [row[0].strip("| ") for row in rows] == [part.name for part in made]
    assert [row[1] for row in rows] == ["ok", "FAILED", "FAILED", "FAILED", "ok"]
    remarks = [row[4].strip(" |*") for row in rows]
    assert remarks[:2] == ["ready", "ValueError: no such kernel"]
    assert re.fullmatch("stopped after [2-9] s", remarks[2])
    assert remarks[3] == "it ended with -11"
    for printed in ("half", "begun", "lost", "table | --device cuda"):
        assert f"\n| {printed}" in text
    assert "Traceback" in text
    assert "Traceback" in capfd.readouterr().err


def test_the_page_is_written_anew_after_each_part(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "PARTS", parts(gpu, "machine", "whole", "broken"))
    pages = []
    run = gpu.run

    def watched(part, *arguments):
        pages.extend(path.read_text() for path in (tmp_path / "out").glob("*.md"))
        return run(part, *arguments)

    monkeypatch.setattr(gpu, "run", watched)
    with pytest.raises(SystemExit):
        gpu.main()
    first, second = pages
    assert "| machine | ok |" in first
    assert "| whole | not run |" in first
    assert "| whole | ok |" in second
    assert "| broken | not run |" in second


def test_all_parts_hold_one_lease(gpu, tmp_path, monkeypatch):
    held = []

    @contextlib.contextmanager
    def lease_gpu():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-7")
        held.append("taken")
        yield
        held.append("returned")

    monkeypatch.setattr(gpu_lease, "lease_gpu", lease_gpu)
    monkeypatch.setattr(gpu, "PARTS", parts(gpu, "machine", "whole"))
    outcomes = []
    run = gpu.run

    def watched(*arguments):
        outcomes.append([*held])
        return run(*arguments)

    monkeypatch.setattr(gpu, "run", watched)
    with pytest.raises(SystemExit):
        gpu.main()
    assert outcomes == [["taken"], ["taken"]]
    assert held == ["taken", "returned"]


def test_without_a_usable_gpu_it_stops_with_one_message(gpu, monkeypatch):
    def refuse():
        raise UnusableGpu("node7: CUDA_VISIBLE_DEVICES=9 chooses no GPU of the machine")

    monkeypatch.setattr(gpu_lease, "lease_gpu", refuse)
    with pytest.raises(SystemExit, match=r"^node7: CUDA_VISIBLE_DEVICES=9 chooses no GPU"):
        gpu.main()


def test_without_a_gpu_it_stops_with_the_reason(gpu, tmp_path, monkeypatch):
    (tmp_path / "fake_machine.py").write_text(
        "def main():\n    raise RuntimeError('Found no NVIDIA driver')\n"
    )
    monkeypatch.setattr(gpu, "PARTS", parts(gpu, "machine", "whole"))
    with pytest.raises(SystemExit, match=r"torch can use no cuda here: .*no NVIDIA driver"):
        gpu.main()
    text = (tmp_path / "out" / "gpu-cuda.md").read_text()
    assert "RuntimeError: Found no NVIDIA driver" in text
    assert "| whole | not run |" in text


def test_a_first_part_that_is_late_does_not_stop_the_others(gpu, tmp_path, monkeypatch):
    machine, whole = parts(gpu, "slow", "whole")
    monkeypatch.setattr(gpu, "PARTS", (machine._replace(limit=1), whole))
    with pytest.raises(SystemExit):
        gpu.main()
    assert "| whole | ok |" in (tmp_path / "out" / "gpu-cuda.md").read_text()


IMPORT_ALL = """
import sys, torch
calls = []
torch._C._cuda_getDeviceCount = lambda: calls.append("device count") or 0
torch._C._cuda_init = lambda: calls.append("init")
import preload, gpu, argparse, importlib

class Parsed(Exception): pass

def parse(parser, parse=argparse.ArgumentParser.parse_args):
    parse(parser)
    raise Parsed

assert not calls, calls
argparse.ArgumentParser.parse_args = parse
for part in gpu.PARTS:
    module, *arguments = part.command.split()
    assert module in sys.modules, f"preload.py leaves out {module}"
    for more in ("--device cuda", f"--device cpu {part.miniature}"):
        sys.argv = [module, *arguments, *more.split()]
        try:
            sys.modules[module].main()
        except Parsed:
            print(module)
"""


@pytest.mark.slow
def test_the_server_imports_every_part_and_uses_no_gpu_and_each_part_accepts_its_options():
    command = [sys.executable, "-c", IMPORT_ALL]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 26


@pytest.mark.slow
def test_the_miniature_passes_with_nothing_but_torch_and_timm(bare_environment, tmp_path):
    command = [
        sys.executable,
        str(BENCHMARKS / "gpu.py"),
        "--device",
        "cpu",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(
        command, env=bare_environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "gpu-cpu-in-miniature.md").read_text()
    statuses = re.findall(r"^\| [\w-]+ \| (ok|FAILED|not run) \|", text, re.M)
    assert statuses == ["ok"] * 13
    assert "every convolution and linear layer of every model has a gradient" in text
    for layers in (16, 70, 26):
        assert f"| 0 of {layers} |" in text
    assert "| bn_inception at 32, frozen batch norm | equal | equal |" in text
    assert "missing packages: faiss, scipy, pyarrow, pydantic, sklearn" in text
    assert "pytorch-metric-learning missing" in text
    for row in (
        "frozen batch norm, deterministic",
        "htl",
        "hpl",
        "Proxy Anchor",
        "dmlbench",
        "limit: one resident batch",
        "peer: ImageFolder, DataLoader",
        "all metrics",
        "two at once, on a CPU",
    ):
        assert f"\n| {row} | " in text
    assert "**no**" not in text


@pytest.mark.slow
def test_faiss_is_measured_beside_torch():
    checks = ["torch_then_faiss", "faiss_then_torch", "faiss_beside_torch"]
    command = [sys.executable, str(BENCHMARKS / "search.py"), *checks, "--device", "cpu"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("100% of the neighbours are equal") == 2
    assert "| k-means of one start, 2 iterations | " in done.stdout
    assert "times as fast as" in done.stdout.splitlines()[-1]
