"""Errors whose text is meant for the user, and the failure of a job as its result."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

TRACEBACK_LINES = 12
"""Last lines of a traceback that a failed result keeps."""

OUT_OF_MEMORY = (
    "out of memory",
    "alloc_failed",
    "allocation_failed",
    "allocate memory",
    "not enough memory",
    "bad_alloc",
)
"""What torch says, in small letters, if the memory of the GPU or of the machine is too small. They
are the texts of its caching allocators, of the CUDA runtime and driver, cuBLAS, cuSOLVER, cuFFT,
cuDNN 9, MKL and C++, as the libraries of torch 2.15 hold them."""
GPU_ERRORS = ("CUDA error", "CUDA driver error", "cuDNN error", "Triton Error [CUDA]")
"""How torch begins what CUDA's libraries report."""

MAX_PROBLEMS = 30
"""Problems of a study that a message shows."""


class UserError(Exception):
    """Something that the user can fix. The text says what was found and what to do.

    The command line prints it without a traceback.
    """

    status = "error"
    """The status of a run that fails by it."""


class StudyError(UserError):
    """The study cannot be run as it is written. The text has a line for each of its `problems`."""

    def __init__(self, file: str, problems: Iterable[str]) -> None:
        lines = [f"  {problem}" for problem in problems]
        more = len(lines) - MAX_PROBLEMS
        if more > 0:
            lines[MAX_PROBLEMS:] = [f"  ... and {more} more"]
        super().__init__("\n".join([f"{file}: the study cannot be run:", *lines]))


class UnreadableYaml(UserError):
    """YAML of the user that cannot be read, or that YAML reads as something else.

    `problems` holds a line for each thing that is wrong.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = [*problems]
        super().__init__("\n".join(self.problems))


class InvalidArgument(UserError, ValueError):
    """An argument of a function of the library is not what it must be."""


class WrongEnvironment(UserError):
    """A variable of the environment has a value that it cannot have."""


class DatasetError(UserError):
    """An archive, a data set or a store is not what it must be."""


class MissingResult(UserError):
    """A result is missing, or is not the one that the study asks for."""


class DiskError(UserError, OSError):
    """A file cannot be written: the disk is full, read-only or broken; see utils/disk.py.

    `status` is what a run has that fails by it: "disk_full" or "disk_error".
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[DiskError], tuple[str, str]]:
        return DiskError, (self.status, str(self))  # it may come from a worker


class UnusableGpu(UserError):
    """There is a GPU, and torch cannot compute on it: another node may do better."""

    status = "unusable_gpu"


class NoFreeGpu(UserError):
    """A job stopped waiting for a GPU: its time is over, or somebody asked it to stop."""


class MissingWeights(UserError):
    """Pretrained weights are not here and cannot be fetched."""

    status = "missing_weights"


class TrackingError(UserError):
    """Results cannot be written to MLflow."""


class BrokenInstallation(UserError):
    """A package is installed and cannot be imported."""


class UnusableLoss(UserError):
    """A name in a study does not lead to a loss."""


class UnusableFile(UserError):
    """A file of external embeddings does not hold one embedding for each test image."""


def failure_result(error: Exception, status: str | None = None) -> dict[str, Any]:
    """Status and error of a run that failed with `error`, while an exception is handled.

    It needs neither torch nor a device: `error` may be that they are broken.

    Args:
        status: by default that of `error`.

    >>> failure_result(MissingWeights("no weights of x"))["status"]
    'missing_weights'
    >>> failure_result(KeyError("x"))["error"]["message"]
    "KeyError: 'x'"
    """
    if isinstance(error, UserError):  # its text is written for the user; others need their type
        text, own_status = str(error), error.status
    else:
        text = f"{type(error).__name__}: {error}"
        own_status = "out_of_memory" if is_out_of_memory(error) else "error"
    tail = traceback.format_exc().splitlines()[-TRACEBACK_LINES:]
    return {"status": status or own_status, "error": {"message": _headline(text), "tail": tail}}


def _headline(text: str) -> str:
    """The first line of `text`, and the next one if the first only announces it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the memory of the GPU, or of the machine, is too small.

    Libraries hide it: torch.compile raises another error with its text, and a file that torch saves
    is closed with another error while this one is handled.

    >>> is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    True
    >>> is_out_of_memory(ValueError("out of memory bank"))
    False
    """
    return any(_says_out_of_memory(cause) for cause in error_chain(error))


def _says_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError):
        # the name, as torch may not be imported, or be what is broken
        is_named = type(error).__name__ == "OutOfMemoryError"
        return is_named or any(words in str(error).lower() for words in OUT_OF_MEMORY)
    return isinstance(error, MemoryError)


def is_gpu_error(error: BaseException) -> bool:
    """Whether `error` comes from the GPU or its libraries. The GPU may answer nothing after it.

    >>> is_gpu_error(RuntimeError("CUDA error: an illegal memory access was encountered"))
    True
    """
    return any(
        isinstance(cause, RuntimeError) and any(words in str(cause) for words in GPU_ERRORS)
        for cause in error_chain(error)
    )


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """`error`, and those that were being handled when it was raised."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        current = todo.pop()
        if current is not None and id(current) not in seen:
            seen.add(id(current))
            yield current
            todo += [current.__context__, current.__cause__]
