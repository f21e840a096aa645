"""CUDA's own answer, by a driver library that the tests compile."""

import os
import shutil
import subprocess

import pytest

from dmlbench.utils.cuda_devices import CudaDevice, ask_cuda

LIBRARY = r"""
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int first, count;
int cuInit(unsigned flags) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (visible && !strcmp(visible, "hangs")) sleep(60);
    if (visible && !strcmp(visible, "broken")) return 999;
    first = visible ? atoi(visible) : 0;
    count = visible ? 1 : 2;
    return 0;
}
int cuDeviceGetCount(int *number) { *number = count; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = first + ordinal; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    strncpy(name, device ? "NVIDIA A100 MIG 1g.5gb" : "NVIDIA H200", length);
    return 0;
}
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    for (int i = 0; i < 16; i++) uuid[i] = 16 * device + i;
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 20 ? 3 * device : -1;
    return 0;
}
"""
FIRST = CudaDevice("00010203-0405-0607-0809-0a0b0c0d0e0f", "NVIDIA H200", "Default")
SECOND = CudaDevice(
    "10111213-1415-1617-1819-1a1b1c1d1e1f", "NVIDIA A100 MIG 1g.5gb", "Exclusive_Process"
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """A CUDA driver with two GPUs, and the environment in which processes find it."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libcuda.so.1"
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", library]
    subprocess.run(command, input=LIBRARY, text=True, check=True)
    return library, {"LD_LIBRARY_PATH": str(folder), "PATH": os.environ["PATH"]}


@pytest.fixture
def has_driver(driver, monkeypatch):
    """This process, which began without the driver, finds it too."""
    library, environment = driver
    load = "dmlbench.utils.cuda_devices.ctypes.CDLL"
    monkeypatch.setattr(load, lambda name: {"libcuda.so.1": library}[name])
    return environment


def test_cuda_lists_what_the_environment_shows_it(has_driver):
    assert ask_cuda(has_driver) == [FIRST, SECOND]
    assert ask_cuda(has_driver | {"CUDA_VISIBLE_DEVICES": "1"}) == [SECOND]


def test_a_driver_that_fails_or_hangs_lists_nothing(has_driver, monkeypatch):
    assert ask_cuda(has_driver | {"CUDA_VISIBLE_DEVICES": "broken"}) == []
    monkeypatch.setattr("dmlbench.utils.cuda_devices.SECONDS", 0.5)
    assert ask_cuda(has_driver | {"CUDA_VISIBLE_DEVICES": "hangs"}) == []


def test_a_machine_without_a_driver_starts_no_process(monkeypatch):
    def fail(name):
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr("dmlbench.utils.cuda_devices.ctypes.CDLL", fail)
    monkeypatch.setattr("dmlbench.utils.cuda_devices.subprocess.run", None)
    assert ask_cuda({}) == []
