"""Which device a job computes on, and when it refuses the CPU. CUDA is a made one."""

import platform
import re
import warnings

import pytest
import torch

from dmlbench.utils import device
from dmlbench.utils.device import choose_device, device_fault, driver_version, use_chosen_device
from dmlbench.utils.errors import UnusableGpu, UserError, WrongEnvironment
from dmlbench.utils.modules import PACKAGE

CPU, GPU = torch.device("cpu"), torch.device("cuda")
NO_KERNEL = torch.AcceleratorError(
    "CUDA error: no kernel image is available for execution on the device\n"
    "Search for `cudaErrorNoKernelImageForDevice' in [...] for more information."
)
TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver by downloading and installing a new version from the URL: [...]"
)
NO_DRIVER = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"


class Cuda:
    """What torch.cuda answers. An exception is raised in place of an answer."""

    is_seen = True
    warning = ""
    fault = None
    """What the first kernel raises."""
    init = RuntimeError(NO_DRIVER)
    name = "Tesla V100-SXM2-16GB"
    capability = (7, 0)
    kernels = ("sm_75", "sm_80", "sm_90")

    def is_available(self):
        if self.warning:
            warnings.warn(self.warning, stacklevel=2)
        return self.is_seen

    def ones(self, *shape, device):
        if device.type == "cuda" and self.fault:
            raise self.fault
        return torch.full(shape, 1.0)


def answer(value):
    def ask(*_):
        if isinstance(value, Exception):
            raise value
        return value

    return ask


@pytest.fixture
def see(monkeypatch):
    """Let torch see a GPU that differs from `Cuda` by these attributes."""

    def replace(**attributes):
        cuda = Cuda()
        for name, value in attributes.items():
            setattr(cuda, name, value)
        monkeypatch.setattr(torch.cuda, "is_available", cuda.is_available)
        monkeypatch.setattr(torch.cuda, "init", answer(cuda.init))
        monkeypatch.setattr(torch.cuda, "get_device_name", answer(cuda.name))
        monkeypatch.setattr(torch.cuda, "get_device_capability", answer(cuda.capability))
        monkeypatch.setattr(torch.cuda, "get_arch_list", answer(list(cuda.kernels)))
        monkeypatch.setattr(torch, "ones", cuda.ones)
        monkeypatch.setattr(torch.version, "cuda", "13.2")
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(device, "driver_version", lambda: "470.57.02")

    return replace


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Write a made nvidia-smi."""

    def write(script):
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return write


def message_of(environ, error=UnusableGpu):
    with pytest.raises(error) as caught:
        choose_device("float32", environ)
    text = str(caught.value)
    assert "\n" not in text  # a process that fails is known by its last line
    assert "set DMLBENCH_DEVICE=cpu" in text
    return text


def test_a_gpu_that_computes_is_chosen_and_its_libraries_were_told_how_before(see, monkeypatch):
    environ, then = {"CUDA_VISIBLE_DEVICES": "GPU-5c1"}, []
    see()
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *a, **k: then.append({**environ}) or ones(*a, **k))
    assert choose_device("float32", environ) == GPU
    assert then[0]["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert then[0]["NVIDIA_TF32_OVERRIDE"] == "0"


def test_a_gpu_without_kernels_is_refused_with_all_that_decides_whether_it_can_be_used(see):
    see(fault=NO_KERNEL)
    assert message_of({"CUDA_VISIBLE_DEVICES": "GPU-5c1"}) == (
        f"torch cannot compute on the GPU of this job on {platform.node()} "
        "(CUDA_VISIBLE_DEVICES=GPU-5c1): CUDA error: no kernel image is available for execution "
        "on the device. GPU: Tesla V100-SXM2-16GB, compute capability 7.0. Driver: 470.57.02 (CUDA "
        f"13.2 needs 580 or newer). Torch: {torch.__version__}, for CUDA 13.2, with kernels for "
        "sm_75, sm_80, sm_90. Driver and torch must fit the GPU: see docs/hardware.md, and "
        "`nvidia-smi` there. To compute on the CPU, set DMLBENCH_DEVICE=cpu."
    )


@pytest.mark.parametrize("environ", [{}, {"CUDA_VISIBLE_DEVICES": "0"}])
def test_a_driver_that_is_too_old_is_refused_also_if_nobody_gave_the_gpu(see, environ):
    report = f"CUDA initialization: {TOO_OLD} (Triggered internally at CUDAFunctions.cpp:109.)"
    see(is_seen=False, warning=report, init=RuntimeError(TOO_OLD))
    message = message_of(dict(environ))
    assert "(found version 11040)" in message
    assert "Driver: 470.57.02 (CUDA 13.2 needs 580 or newer)" in message


@pytest.mark.parametrize(
    "environ",
    [
        {"SLURM_JOB_GPUS": "3"},
        {"SLURM_STEP_GPUS": "0", "CUDA_VISIBLE_DEVICES": ""},
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "0", "DMLBENCH_DEVICE": "gpu"},
    ],
)
def test_a_job_that_was_given_a_gpu_refuses_the_cpu_and_names_its_node(see, environ):
    see(is_seen=False)
    message = message_of(dict(environ))
    assert f"of this job on {platform.node()} (" in message
    assert f"): {NO_DRIVER}. " in message
    given = {name: value for name, value in environ.items() if value and name[0] != "D"}
    assert all(f"{name}={value}" in message for name, value in given.items())


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"CUDA_VISIBLE_DEVICES": ""},
        {"CUDA_VISIBLE_DEVICES": "-1"},
        {"CUDA_VISIBLE_DEVICES": "NoDevFiles"},
        {"SLURM_JOB_ID": "7"},
    ],
)
def test_a_job_without_a_gpu_uses_the_cpu(see, environ):
    see(is_seen=False)
    assert choose_device("bfloat16", dict(environ)) == CPU


def test_a_job_that_is_told_to_uses_the_cpu_and_asks_the_gpu_nothing(see, monkeypatch):
    see(fault=NO_KERNEL)
    monkeypatch.setattr(torch.cuda, "is_available", None)  # it would fail if it were called
    environ = {"SLURM_JOB_GPUS": "0", "CUDA_VISIBLE_DEVICES": "0", "DMLBENCH_DEVICE": "cpu"}
    assert choose_device("bfloat16", environ) == CPU
    assert choose_device("bfloat16", {"CUDA_VISIBLE_DEVICES": ""}) == CPU


@pytest.mark.usefixtures("smi")
def test_a_gpu_that_answers_nothing_is_refused_too(see, smi):
    lost = RuntimeError("CUDA error: unknown error")
    smi("echo 'Unable to determine the device handle: GPU is lost'; exit 15")
    see(fault=lost, name=lost, capability=lost)
    assert "unknown error. GPU: unknown, compute capability unknown. Driver" in message_of({})


def test_nvidia_smi_names_a_gpu_that_torch_cannot_see(see, smi):
    smi('case "$*" in *--id=GPU-5c1*name*|*name*--id=GPU-5c1*) echo Tesla T4;; *) echo 7.5;; esac')
    broken = RuntimeError(TOO_OLD)
    see(is_seen=False, init=broken, name=broken, capability=broken)
    message = message_of({"CUDA_VISIBLE_DEVICES": "GPU-5c1,GPU-77"})
    assert "GPU: Tesla T4, compute capability 7.5." in message


def test_a_torch_without_cuda_is_named(see, monkeypatch):
    see(is_seen=False, kernels=(), init=AssertionError("Torch not compiled with CUDA enabled"))
    monkeypatch.setattr(torch.version, "cuda", None)
    message = message_of({"CUDA_VISIBLE_DEVICES": "0"})
    assert "): Torch not compiled with CUDA enabled. " in message
    assert f"Driver: 470.57.02. Torch: {torch.__version__}, without CUDA. " in message


def test_a_torch_for_amd_is_refused_unless_the_cpu_is_chosen(see, monkeypatch):
    see()
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "(ROCm), which dmlbench does not support" in message_of({}, WrongEnvironment)
    assert choose_device("float32", {"DMLBENCH_DEVICE": "cpu"}) == CPU


def test_a_gpu_that_adds_wrong_is_refused(see, monkeypatch):
    see()
    monkeypatch.setattr(torch, "ones", lambda *shape, device: torch.full(shape, 1.5))
    assert ": 1 + 1, summed up 4,096 times, is 18432. GPU" in message_of({})


def test_what_torch_warns_of_a_gpu_that_computes_is_shown(see):
    see(warning="the fan is loud")
    with pytest.warns(UserWarning, match="the fan is loud"):
        assert choose_device("float32", {}) == GPU


def test_bfloat16_is_refused_where_the_gpu_has_none(see):
    see(name="Tesla T4", capability=(7, 5))
    assert choose_device("float32", {}) == GPU
    with pytest.raises(UserError) as caught:
        choose_device("bfloat16", {})
    assert str(caught.value) == (
        "recipe.gpu_precision: bfloat16 needs a GPU of compute capability 8.0 or more, and Tesla "
        "T4 has 7.5: torch would emulate it, some ten times slower. Set `gpu_precision: float32` "
        "under `recipe:` of the study; or use another GPU, or the CPU (DMLBENCH_DEVICE=cpu)."
    )
    assert caught.value.status == "error"  # another attempt would not help
    see(name="NVIDIA A10", capability=(8, 6))
    assert choose_device("bfloat16", {}) == GPU


def test_a_device_that_torch_does_not_have_or_that_holds_no_numbers_is_faulty():
    assert device_fault("cpu") == ""
    assert "meta" in device_fault("meta")
    assert device_fault("tpu")
    assert device_fault(None)


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:16:29 UTC 2025",
        "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.65.06  Release Build",
    ],
)
def test_the_version_of_the_driver_is_read_from_the_kernel(tmp_path, line, smi):
    smi("echo 1.2.3")
    (tmp_path / "version").write_text(f"{line}\nGCC version:  gcc version 13.3.0 (Ubuntu)\n")
    assert driver_version(tmp_path / "version") == "580.65.06"


@pytest.mark.parametrize(
    ("script", "version"),
    [
        ("echo 535.104.05; echo 535.104.05", "535.104.05"),
        ("exit 9", None),
        ("exec sleep 60", None),  # as a GPU that is broken makes it
    ],
)
def test_nvidia_smi_tells_the_version_of_the_driver_where_the_kernel_does_not(
    tmp_path, smi, monkeypatch, script, version
):
    monkeypatch.setattr("dmlbench.utils.nvidia_smi.SECONDS", 0.5)
    smi(script)
    assert driver_version(tmp_path / "missing") == version
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert driver_version(tmp_path / "missing") is None


def test_the_choice_of_the_cpu_hides_all_gpus():
    environ = {"DMLBENCH_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": "0,1"}
    use_chosen_device(environ)
    assert environ["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize("chosen", ["", "gpu", None])
def test_without_a_choice_gpus_stay_as_they_are(chosen):
    environ = {"CUDA_VISIBLE_DEVICES": "1"} | (
        {} if chosen is None else {"DMLBENCH_DEVICE": chosen}
    )
    use_chosen_device(environ)
    assert environ["CUDA_VISIBLE_DEVICES"] == "1"


def test_another_choice_is_refused():
    with pytest.raises(WrongEnvironment, match="DMLBENCH_DEVICE=cuda: it is cpu, or gpu"):
        use_chosen_device({"DMLBENCH_DEVICE": "cuda"})


def test_nothing_else_asks_torch_whether_there_is_a_gpu():
    asks = re.compile(r"cuda\.(is_available|device_count)\(|torch\.accelerator")
    files = [path for path in PACKAGE.rglob("*.py") if asks.search(path.read_text("utf-8"))]
    assert files == [PACKAGE / "utils/device.py"]
