"""Names of studies that cannot be those of folders in `results/`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from dmlbench.utils.text import short_repr

MAKES_NUMBERS = False
TAKEN = re.compile(r"mlflow|mlflow\.db.*|mlartifacts|mlruns|readme\.md", re.IGNORECASE)
"""Files and folders in `results/` that belong to no study."""
WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names of devices: no folder of this name can be copied to Windows."""
MAX_PATH = 4096
"""Bytes of a path, on most systems."""
LONGEST_FILE = 300
"""Bytes of the longest path inside the folder of a run, with a temporary name."""


def name_problem(name: str) -> str | None:
    """Why no study can have this name; None if one can.

    >>> name_problem("demo"), name_problem("README.md")
    (None, 'README.md is the name of a file or a folder in results/. Take another name')
    """
    if TAKEN.fullmatch(name):
        return f"{name} is the name of a file or a folder in results/. Take another name"
    if WINDOWS.fullmatch(name):
        return f"{name} is the name of a device on Windows. Take another name"
    return None


def folder_problem(folder: Path) -> str | None:
    """Why `folder`, that of the results of a study, cannot be used; None if it can."""
    if folder.exists() and not folder.is_dir():
        return f"study: {folder} is a file, and the results need a folder of this name. Rename one."
    if not folder.parent.is_dir():
        return None
    for other in folder.parent.iterdir():
        if other.name.lower() == folder.name.lower() and other.name != folder.name:
            return (
                f"study: {other} differs from {folder} only in upper and lower "
                f"case, and some file systems have one folder for both. Take another name."
            )
    return None


def length_problem(paths: Iterable[Path]) -> str | None:
    """The problem of the longest of `paths`, folders of results; None if it is short enough."""
    longest = max((os.fsencode(path.absolute()) for path in paths), key=len, default=b"")
    if len(longest) + LONGEST_FILE <= MAX_PATH:
        return None
    return (
        f"study: the files in {short_repr(os.fsdecode(longest))} would have paths of more than "
        f"{MAX_PATH:,} bytes, which no system opens. Work in a folder with a shorter path."
    )
