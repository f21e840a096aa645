"""Errors whose text is meant for the user, and the failure of a job as its result."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import Any

TRACEBACK_LINES = 12
"""Last lines of a traceback that a failed result keeps."""

MAX_PROBLEMS = 30
"""Problems of a study that a message shows."""


class UserError(Exception):
    """Something that the user can fix. The text says what was found and what to do.

    The command line prints it without a traceback.
    """


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


class GpuNotSeen(UserError):
    """This job was given a GPU, and torch does not see it: another node may do better."""


class MissingWeights(UserError):
    """Pretrained weights are not here and cannot be fetched."""


class TrackingError(UserError):
    """Results cannot be written to MLflow."""


class BrokenInstallation(UserError):
    """A package is installed and cannot be imported."""


class UnusableLoss(UserError):
    """A name in a study does not lead to a loss."""


class UnusableFile(UserError):
    """A file of external embeddings does not hold one embedding for each test image."""


def failure_result(status: str, message: str) -> dict[str, Any]:
    """Status and error of a failed run, with the last lines of the exception being handled."""
    tail = traceback.format_exc().splitlines()[-TRACEBACK_LINES:]
    return {"status": status, "error": {"message": message.splitlines()[0], "tail": tail}}
