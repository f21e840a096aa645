"""A lease gives a physical GPU to one process at a time, under whatever number it is seen."""

import ctypes
import subprocess
import sys
import threading
import time

import pytest

from dmlbench.training.device import lease, visible_gpus
from dmlbench.training.state import Stopped

SMI = """#!/bin/sh
echo "0, GPU-aaa"
echo "1, GPU-bbb"
"""


def never():
    return None


@pytest.fixture
def two_gpus(tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(SMI)
    tool.chmod(0o755)
    return {"PATH": f"{tmp_path}:/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["GPU-aaa", "GPU-bbb"]),
        ("1", ["GPU-bbb"]),
        ("1,0", ["GPU-bbb", "GPU-aaa"]),
        ("GPU-bbb", ["GPU-bbb"]),
        ("", []),
        ("-1", []),
    ],
)
def test_gpus_are_named_by_uuid(two_gpus, monkeypatch, visible, expected):
    monkeypatch.setenv("PATH", two_gpus["PATH"])
    environment = two_gpus | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    assert visible_gpus(environment) == expected


def test_a_machine_without_nvidia_has_none(tmp_path):
    assert visible_gpus({"PATH": str(tmp_path)}) == []


def test_without_gpus_there_is_nothing_to_wait_for(tmp_path):
    with lease([], never, tmp_path) as device:
        assert device is None


def test_no_device_is_ever_leased_twice(tmp_path):
    users = {"a": 0, "b": 0}
    most = []

    def work():
        with lease(["a", "b"], never, tmp_path) as device:
            users[device] += 1
            most.append(max(users.values()))
            time.sleep(0.03)
            users[device] -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(most) == 8
    assert max(most) == 1


def test_a_killed_process_leaves_its_device(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from dmlbench.training.device import lease\n"
        "with lease(['a'], lambda: None, Path(sys.argv[1])) as device:\n"
        "    print(device, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "a\n"
    process.kill()
    process.wait()
    with lease(["a"], never, tmp_path) as device:
        assert device == "a"


def test_who_waits_for_a_device_hears_the_wish_to_stop(tmp_path):
    held = lease(["a"], never, tmp_path)
    waiting = lease(["a"], lambda: "stopped", tmp_path)
    with held, pytest.raises(Stopped, match="waiting for a GPU") as stop, waiting:
        pass
    assert stop.value.reason == "stopped"


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's malloc")
def test_freed_memory_is_used_again_and_not_asked_of_the_system_anew():
    """Page faults of allocating, filling and freeing 64 MB, a hundred times over."""
    script = (
        "import resource, numpy as np\n"
        "{keep}\n"
        "np.ones(2**23)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(100): np.ones(2**23)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    keep = "from dmlbench.training.device import keep_freed_memory; keep_freed_memory()"
    faults = [
        int(subprocess.check_output([sys.executable, "-c", script.format(keep=text)]))
        for text in ("", keep)
    ]
    assert faults[1] * 10 < faults[0]
