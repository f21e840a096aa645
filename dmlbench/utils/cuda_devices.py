"""The GPUs that CUDA itself sees, in its own order. It needs no torch and no nvidia-smi.

The order, CUDA_VISIBLE_DEVICES and MIG are as the CUDA driver reads them when a process first uses
it, and stay so in that process. So another process asks: this file, run as a script. Nothing here
imports anything else of the package.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import uuid
from collections.abc import Mapping
from typing import NamedTuple

LIBRARY = "libcuda.so.1"
"""The CUDA driver's library, by the name under which torch loads it."""
COMPUTE_MODE = 20
"""CU_DEVICE_ATTRIBUTE_COMPUTE_MODE of the CUDA driver API."""
COMPUTE_MODES = {0: "Default", 2: "Prohibited", 3: "Exclusive_Process"}
"""CUcomputemode of the CUDA driver API, by the names of nvidia-smi."""
MAX_NAME = 256
SECONDS = 60.0


class CudaDevice(NamedTuple):
    """A GPU as CUDA sees it."""

    uuid: str
    """Without the "GPU-" or "MIG-" of nvidia-smi."""
    name: str
    mode: str
    """Its compute mode, as nvidia-smi names it."""


def ask_cuda(environ: Mapping[str, str]) -> list[CudaDevice]:
    """The GPUs that a process sees whose environment is `environ`, in their order.

    The list is empty if CUDA cannot be used.
    """
    try:
        ctypes.CDLL(LIBRARY)  # machines without a driver do not pay for a process
    except OSError:
        return []
    # -P: what is beside this file must not be taken for modules of Python
    command = [sys.executable, "-P", __file__]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=SECONDS, env={**environ}
        )
        return [CudaDevice(*fields) for fields in json.loads(answer.stdout)]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def list_devices() -> list[CudaDevice]:
    """The GPUs of this process, which starts to use CUDA.

    Raises:
        OSError: there is no CUDA driver, or a call of it failed.
    """
    cuda = ctypes.CDLL(LIBRARY)
    count = ctypes.c_int()
    _check(cuda.cuInit(0))
    _check(cuda.cuDeviceGetCount(ctypes.byref(count)))
    return [_describe(cuda, ordinal) for ordinal in range(count.value)]


def _describe(cuda: ctypes.CDLL, ordinal: int) -> CudaDevice:
    device, mode = ctypes.c_int(), ctypes.c_int()
    name, identifier = ctypes.create_string_buffer(MAX_NAME), (ctypes.c_ubyte * 16)()
    _check(cuda.cuDeviceGet(ctypes.byref(device), ordinal))
    _check(cuda.cuDeviceGetName(name, MAX_NAME, device))
    # the second version gives the UUID of a MIG slice, the first one that of its card
    _check(cuda.cuDeviceGetUuid_v2(identifier, device))
    _check(cuda.cuDeviceGetAttribute(ctypes.byref(mode), COMPUTE_MODE, device))
    return CudaDevice(
        str(uuid.UUID(bytes=bytes(identifier))),
        name.value.decode(errors="replace"),
        COMPUTE_MODES.get(mode.value, str(mode.value)),
    )


def _check(result: int) -> None:
    """Raise an error if a call of the CUDA driver API did not give CUDA_SUCCESS."""
    if result:
        raise OSError(f"CUDA driver error {result}")


if __name__ == "__main__":
    print(json.dumps(list_devices()))
