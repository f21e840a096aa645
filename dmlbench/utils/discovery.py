"""Questions about installed packages, asked once per version in a process of their own.

Importing timm or torch takes seconds. A study that names a timm model or a loss of
pytorch-metric-learning is checked without: the answer of an earlier process is remembered.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dmlbench.utils.errors import BrokenInstallation
from dmlbench.utils.files import read_json_if_whole, write_json


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, without importing anything; a missing package is left out."""
    installed = {}
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed


def remembered(name: str, facts: Any) -> Any | None:
    """The answer that was given for `facts`; None if nobody asked yet."""
    return read_json_if_whole(_cache_file(name, facts))


def ask_once(name: str, facts: Any, module: str, *arguments: str) -> Any:
    """As `ask`, unless the answer is remembered."""
    known = remembered(name, facts)
    return ask(name, facts, module, *arguments) if known is None else known


def ask(name: str, facts: Any, module: str, *arguments: str) -> Any:
    """What `python -m module arguments` prints as JSON in its last line.

    The answer is remembered under `name` for `facts`, everything that it depends on.

    Raises:
        BrokenInstallation: the process failed; the text is its last line. It is asked again the
            next time.
    """
    command = [sys.executable, "-m", module, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise BrokenInstallation((run.stderr.strip().splitlines() or ["no message"])[-1])
    answer = json.loads(run.stdout.splitlines()[-1])
    with contextlib.suppress(OSError):  # without a cache it is slower, and no worse
        write_json(_cache_file(name, facts), answer)
    return answer


def cache_folder() -> Path:
    """Where answers are kept: DMLBENCH_CACHE, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dmlbench"
    return Path(os.environ.get("DMLBENCH_CACHE") or default)


def _cache_file(name: str, facts: Any) -> Path:
    label = hashlib.sha256(json.dumps([facts, sys.prefix]).encode()).hexdigest()[:16]
    return cache_folder() / f"{name}-{label}.json"
