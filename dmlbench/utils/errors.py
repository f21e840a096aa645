"""Errors whose text is meant for the user, and the failure of a job as its result."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import Any

TRACEBACK_LINES = 12
"""Last lines of a traceback that a failed result keeps."""


class UserError(Exception):
    """Something that the user can fix. The text says what was found and what to do.

    The command line prints it without a traceback.
    """


class StudyError(UserError):
    """The study cannot be run as it is written."""

    def __init__(self, file: str, problems: Iterable[str]) -> None:
        lines = [f"{file}: the study cannot be run:", *(f"  {problem}" for problem in problems)]
        super().__init__("\n".join(lines))


class DatasetError(UserError):
    """An archive, a data set or a store is not what it must be."""


class MissingResult(UserError):
    """A result is missing, or is not the one that the study asks for."""


class MissingWeights(UserError):
    """Pretrained weights are not here and cannot be fetched."""


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
