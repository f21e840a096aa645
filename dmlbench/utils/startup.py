"""Reduce what large libraries cost besides their work: their import and the end of the process."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

_freezes_imports = False


def freeze_imports() -> None:
    """Let this process keep for good what it imports. Call it in a process that ends with its job.

    The garbage collector then never looks at what `heavy_imports` created.
    """
    global _freezes_imports
    _freezes_imports = True
    atexit.register(gc.unfreeze)  # libraries complain about objects that are never freed


@contextlib.contextmanager
def heavy_imports() -> Iterator[None]:
    """Pause garbage collection during a heavy import; in a job's process, freeze what it created.

    An import creates hundreds of thousands of objects that stay. Python's collector would walk
    through all of them again and again.
    """
    was_enabled, modules = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if _freezes_imports and len(sys.modules) > modules:
            gc.freeze()
        if was_enabled:
            gc.enable()


def exit_now(code: int) -> NoReturn:
    """End this process without the functions of atexit; its results must be on disk.

    A normal end would free torch object by object, which takes a second of a core.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
