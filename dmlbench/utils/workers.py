"""Worker processes that end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from dataclasses import fields
from typing import Any


class SentWithoutCache:
    """A dataclass that is sent to workers by its fields alone, without its cached properties.

    A pool sends its tasks from a thread of its own. Meanwhile the caller may fill a cache, and a
    dict that grows while it is read is an error.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


def exit_with_parent() -> None:
    """End this worker when its parent ends: the initializer of a pool of processes.

    A killed parent cannot stop its workers, and they would wait for work for ever. Ctrl-C reaches
    all processes, and the parent handles it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
