"""A process gets one of the GPUs that it may use, and sees only that one."""

import os
import subprocess
import sys
from contextlib import ExitStack

import pytest
import torch

from dmlbench.utils import gpu_lease
from dmlbench.utils.cuda_devices import CudaDevice
from dmlbench.utils.errors import NoFreeGpu, UnusableGpu
from dmlbench.utils.gpu_lease import hand_down_gpus, lease, lease_device, lease_gpu
from dmlbench.utils.modules import PACKAGE

TWO = ("GPU-a, Default, Disabled, NVIDIA H200", "GPU-b, Default, Disabled, NVIDIA H200")
OLD = "MIG-GPU-a/1/0"


@pytest.fixture(autouse=True)
def smi(nvidia_smi, tmp_path, monkeypatch):
    """A machine with two GPUs; the answer is the list of the calls of nvidia-smi."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return nvidia_smi(*TWO)


def at_once():
    return True


def variables():
    names = "CUDA_VISIBLE_DEVICES", "DMLBENCH_GPUS", "DMLBENCH_LEASED_GPU"
    return [os.environ.get(name) for name in names]


def test_cuda_sees_only_the_leased_gpu_for_the_rest_of_the_process():
    with lease(["GPU-a"]), lease_gpu() as place:
        assert place == ("GPU-b", 1)
        assert variables() == ["GPU-b", None, "GPU-b"]
    assert variables() == ["GPU-b", None, None]
    with lease_gpu(4) as place:
        assert place == ("GPU-b", 4)


def test_python_alone_can_lease_a_gpu():
    """The benchmarks run on machines that have torch and no other requirement of dmlbench."""
    root = str(PACKAGE.parent)
    code = f"import sys; sys.path.append({root!r}); import dmlbench.utils.gpu_lease"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


def test_without_a_gpu_nothing_is_changed(nvidia_smi):
    nvidia_smi()
    with lease_gpu() as place:
        assert (place, variables()) == (None, [None, None, None])


def test_a_gpu_that_must_not_be_used_is_no_reason_for_the_cpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(UnusableGpu, match="chooses no GPU"), lease_gpu():
        pass


def test_a_child_of_a_process_with_a_lease_uses_its_place(smi):
    code = (
        "from dmlbench.utils.gpu_lease import lease_gpu\n"
        "with lease_gpu(3, lambda: True) as place: print(*place)"
    )
    command = [sys.executable, "-c", code]
    with lease_gpu(), lease_gpu() as inner:
        assert inner.gpu == os.environ["CUDA_VISIBLE_DEVICES"]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        assert answer.stdout == f"{inner.gpu} 3\n"
    assert len(smi()) == 1


def test_jobs_of_a_study_do_not_ask_for_the_gpus_that_it_hands_down(smi, monkeypatch):
    hand_down_gpus(["GPU-b", "GPU-c"])
    assert variables() == ["GPU-b,GPU-c", "GPU-b,GPU-c", None]
    with lease_gpu() as first:
        held = variables()
    assert first.gpu in ("GPU-b", "GPU-c")
    assert (held, smi()) == ([first.gpu, "GPU-b,GPU-c", first.gpu], [])
    # something between the study and its job chose again, as schedulers do
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with lease_gpu() as place:
        assert place.gpu == "GPU-b"
    assert len(smi()) == 1


def test_of_gpus_that_are_left_to_others_the_least_busy_are_kept():
    with lease(["GPU-a"], 1):
        hand_down_gpus(["GPU-a", "GPU-b"], 1)
    assert variables()[0] == "GPU-b"
    hand_down_gpus(["GPU-a", "GPU-b"], 0)
    assert variables()[0] == ""


def test_a_gpu_for_one_process_is_not_shared(nvidia_smi, monkeypatch):
    """On a node of a cluster, where each job has its own GPU, that is no error."""
    nvidia_smi(TWO[0].replace("Default", "Exclusive_Process"))
    monkeypatch.setattr("dmlbench.utils.gpus.uses_mps", lambda: False)
    with lease_gpu(4) as place:
        assert place.runs == 1
        with pytest.raises(NoFreeGpu), lease(["GPU-a"], 4, at_once):
            pass
    monkeypatch.setattr("dmlbench.utils.gpus.uses_mps", lambda: True)
    with lease_gpu(4) as place:
        assert place.runs == 4


def test_the_slash_in_the_name_of_an_old_slice_reaches_no_file_name(tmp_path):
    names = [OLD, "MIG-GPU-a/1/1", "MIG-GPU-a%2F1%2F1"]
    with ExitStack() as held:
        for name in names:
            assert held.enter_context(lease([name], 1, at_once)) == name
        for name in names:
            with pytest.raises(NoFreeGpu), lease([name], 1, at_once):
                pass
    assert all(path.is_file() for path in (tmp_path / "dmlbench-gpus").iterdir())


def test_whoever_waits_in_vain_learns_who_has_the_gpus():
    code = (
        "import sys, tempfile; from dmlbench.utils.gpu_lease import lease\n"
        f"tempfile.tempdir = {gpu_lease.tempfile.tempdir!r}\n"
        f"with lease(['{OLD}']): print('holds', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout.readline() == "holds\n"
        match = rf"^no GPU became free in 0 s: {OLD} is used by process {other.pid} of \w+$"
        with pytest.raises(NoFreeGpu, match=match), lease([OLD], 2, at_once):
            pass
        other.stdin.close()


def test_where_the_kernel_does_not_tell_who_has_a_gpu_it_is_others(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_lease, "KERNEL_LOCKS", tmp_path / "missing")
    with lease(["GPU-a"]):
        match = "GPU-a is used by others$"
        with pytest.raises(NoFreeGpu, match=match), lease(["GPU-a"], 1, at_once):
            pass


def test_a_process_that_waits_says_so_once(monkeypatch, capsys):
    monkeypatch.setattr(gpu_lease, "PATIENCE", 0.0)
    calls = []

    def give_up():
        calls.append(None)
        return len(calls) == 3

    with lease(["GPU-a"]), pytest.raises(NoFreeGpu), lease(["GPU-a"], 1, give_up):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"waiting for a GPU: GPU-a is used by process {os.getpid()} of ")
    assert line.endswith(". DMLBENCH_DEVICE=cpu computes on the CPU at once")


@pytest.mark.parametrize(("device", "expected"), [("cuda", "GPU-b"), ("cuda:0", "MIG-a")])
def test_the_device_that_a_caller_names_is_leased(monkeypatch, device, expected):
    devices = [CudaDevice("a", "NVIDIA A100 MIG 1g.5gb", "Default"), CudaDevice("b", "T4", "")]
    monkeypatch.setattr(gpu_lease, "list_devices", lambda: devices)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    with lease_device(device):
        with pytest.raises(NoFreeGpu), lease([expected], 1, at_once):
            pass
        monkeypatch.setenv("DMLBENCH_LEASED_GPU", expected)
        with lease_device(device):  # the process has a place there already
            pass
    with lease([expected], 1, at_once):
        pass
