"""NVIDIA's command nvidia-smi, which knows the GPUs of a machine without using them."""

from __future__ import annotations

import subprocess

SECONDS = 30.0
"""A GPU that is broken may let nvidia-smi wait for ever."""


class NvidiaSmiFailed(Exception):
    """nvidia-smi gave no answer. The text says why, in one line.

    `is_missing` if it cannot be started; `finds_no_gpu` if it says that the machine has none.
    """

    def __init__(self, reason: str, *, is_missing: bool = False) -> None:
        super().__init__(reason)
        self.is_missing = is_missing
        self.finds_no_gpu = "No devices were found" in reason


def nvidia_smi(*arguments: str) -> list[str]:
    """The lines that nvidia-smi prints.

    Raises:
        NvidiaSmiFailed: it is not installed, failed, or did not answer in time.
    """
    try:
        answer = subprocess.run(
            ["nvidia-smi", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=SECONDS,
        )
    except OSError as error:
        raise NvidiaSmiFailed(f"nvidia-smi: {error.strerror}", is_missing=True) from None
    except subprocess.TimeoutExpired:
        raise NvidiaSmiFailed(f"nvidia-smi did not answer in {SECONDS:.0f} s") from None
    lines = answer.stdout.splitlines()
    if answer.returncode:
        said = [line.strip() for line in (*lines, *answer.stderr.splitlines()) if line.strip()]
        raise NvidiaSmiFailed(said[0] if said else f"nvidia-smi ended with {answer.returncode}")
    return lines
