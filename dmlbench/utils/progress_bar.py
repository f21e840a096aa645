"""Progress of a long pass over bytes: a bar on a terminal, a line a minute in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from dmlbench.utils.text import format_bytes

EVERY = 60.0
"""Seconds between the lines of a log."""


class ProgressBar:
    """Shown while it is open. `total` is in bytes; None if it is not known."""

    def __init__(self, what: str, total: int | None) -> None:
        from tqdm import tqdm  # who only reads a study needs no bar

        self.what, self.total = what, total
        self._bar = tqdm(
            desc=what,
            total=total,
            unit="B",
            unit_scale=True,
            leave=False,
            disable=not sys.stderr.isatty(),
        )
        self._next = time.monotonic() + EVERY

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def show(self, done: int) -> None:
        self._bar.update(done - self._bar.n)
        if self._bar.disable and time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            of = f" of {format_bytes(self.total)} ({done / self.total:.0%})" if self.total else ""
            print(f"{self.what}: {format_bytes(done)}{of}", file=sys.stderr, flush=True)
