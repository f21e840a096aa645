"""What large libraries cost beside their work: being imported, and being taken down."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

_one_job = False


def for_one_job() -> None:
    """This process ends with its job: what it imports may stay for good."""
    global _one_job
    _one_job = True
    atexit.register(gc.unfreeze)  # libraries complain of what is not taken down


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """While a large library is imported: look for no garbage, and in the process of a job from then
    on not among what is there.

    An import makes hundreds of thousands of objects that stay, and Python's collector walks
    through all of them again and again.
    """
    enabled, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if _one_job and len(sys.modules) > before:
            gc.freeze()
        if enabled:
            gc.enable()


def leave(code: int) -> NoReturn:
    """End this process, whose results are on disk, without what atexit has. Python's own end would
    take torch down object by object: a second of a processor."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
