"""A failed run has the status and the text of its error, whichever library hides it."""

import errno

import pytest
import torch

from dmlbench.training.train import Diverged
from dmlbench.utils.errors import (
    DiskError,
    MissingWeights,
    UnusableGpu,
    UserError,
    failure_result,
    is_gpu_error,
    is_out_of_memory,
)

# Of torch 2.15 and the libraries in its wheels
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    torch.OutOfMemoryError("busy"),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be [...]"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate`"),
    RuntimeError("CUDA ran out of memory outside PyTorch's allocator. If this workload uses [...]"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("backend='inductor' raised:\nOutOfMemoryError: CUDA out of memory. Tried [...]"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried [...]"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
    RuntimeError("C10 Out of Memory. Trying to allocate 8 bytes"),
    RuntimeError("unable to mmap 8 bytes from file <x>: Cannot allocate memory (12)"),
    RuntimeError("std::bad_alloc"),
    MemoryError("Unable to allocate 9 TiB"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]
OTHERS = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("shape '[2]' is invalid for input of size 3"),
    RuntimeError("out of resource: shared memory, Required: 98304, Hardware limit: 65536"),
    ValueError("out of memory bank"),
    OSError(errno.EACCES, "Permission denied"),
    KeyError("memory"),
]


def raised(error, cause=None, context=None):
    """`error`, raised from `cause`, or while `context` was handled."""
    try:
        try:
            if context:
                raise context
        except Exception:
            raise error  # noqa: B904
        raise error from cause
    except Exception as caught:
        return caught


def name(error):
    return f"{type(error).__name__}: {error}"[:60]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=name)
def test_a_memory_that_is_too_small_is_known_by_what_libraries_say(error):
    assert is_out_of_memory(error)
    assert failure_result(error)["status"] == "out_of_memory"


@pytest.mark.parametrize("error", OTHERS, ids=name)
def test_other_errors_are_not_a_memory_that_is_too_small(error):
    assert not is_out_of_memory(error)
    assert failure_result(error)["status"] == "error"


def test_a_memory_that_is_too_small_is_found_below_other_errors():
    full = torch.OutOfMemoryError("CUDA out of memory")
    assert is_out_of_memory(raised(RuntimeError("compiling failed"), cause=full))
    # as torch closes the file of a checkpoint that it could not write
    assert is_out_of_memory(raised(RuntimeError("unexpected pos 64 vs 0"), context=full))
    loop = RuntimeError("a")
    loop.__cause__ = RuntimeError("b")
    loop.__cause__.__context__ = loop
    assert not is_out_of_memory(loop)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.AcceleratorError("CUDA error: device-side assert triggered\n[...]"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling [...]"), True),
        (RuntimeError("CUDA driver error: invalid argument"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), True),
        (raised(ValueError("x"), cause=torch.AcceleratorError("CUDA error: unknown error")), True),
        (RuntimeError("shape '[2]' is invalid for input of size 3"), False),
        (ValueError("CUDA error"), False),
    ],
)
def test_an_error_of_the_gpu_is_known_by_what_libraries_say(error, expected):
    assert is_gpu_error(error) == expected


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UserError("a"), "error"),
        (MissingWeights("a"), "missing_weights"),
        (UnusableGpu("a"), "unusable_gpu"),
        (DiskError("disk_full", "a"), "disk_full"),
        (Diverged("a", []), "diverged"),
    ],
)
def test_an_error_for_the_user_has_its_own_status_and_text(error, status):
    result = failure_result(error)
    assert (result["status"], result["error"]["message"]) == (status, "a")
    assert failure_result(error, "damaged")["status"] == "damaged"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CUDA error: x\nFor debugging consider y", "RuntimeError: CUDA error: x"),
        (
            "backend='inductor' raised:\nKeyError: 1\nmore",
            "RuntimeError: backend='inductor' raised: KeyError: 1",
        ),
        ("\n", "RuntimeError:"),
    ],
)
def test_the_message_of_a_failure_is_the_line_that_says_what_failed(text, message):
    assert failure_result(RuntimeError(text))["error"]["message"] == message


def test_an_error_without_a_text_has_a_message_too():
    assert failure_result(UserError(""))["error"]["message"] == "no message"
