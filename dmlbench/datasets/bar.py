"""How far a long pass over bytes is: a bar on a terminal, a line a minute in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

EVERY = 60.0
"""Seconds between the lines of a log."""


class Bar:
    """Shown while it is open. `total`: bytes, or None where nobody knows."""

    def __init__(self, what: str, total: int | None) -> None:
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

    def __enter__(self) -> Bar:
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
            of = f" of {size(self.total)} ({done / self.total:.0%})" if self.total else ""
            print(f"{self.what}: {size(done)}{of}", file=sys.stderr, flush=True)


def size(count: float) -> str:
    """Bytes as people read them: 1.07 GB."""
    unit = "bytes"
    for larger in ("kB", "MB", "GB"):
        if count >= 1000:
            count, unit = count / 1000, larger
    return f"{count:,.2f}".rstrip("0").rstrip(".") + f" {unit}"
