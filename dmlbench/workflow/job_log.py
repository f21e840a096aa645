"""The last lines of a job's log: they tell `dmlbench status` how the job ended."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from dmlbench.utils.disk import disk_error
from dmlbench.utils.errors import UserError
from dmlbench.utils.log_lines import ATTEMPT, DONE, PREFIX, STOPPED
from dmlbench.utils.reading import read_end

TAIL_BYTES = 64_000
"""How much of the end of a log is read."""


@contextlib.contextmanager
def log_ending() -> Iterator[None]:
    """Let the log of a job end with DONE, or with PREFIX and why the job failed.

    A job that is killed writes neither.

    Raises:
        SystemExit: the job failed; its message is written.
    """
    try:
        yield
    except SystemExit as ended:
        if ended.code:
            raise
    except UserError as error:
        _write(f"{PREFIX}{error}")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        _write(f"{PREFIX}{STOPPED}")
        raise SystemExit(1) from None
    except Exception as error:
        if problem := disk_error(error, Path.cwd()):
            _write(f"{PREFIX}{problem}")
        else:
            traceback.print_exc()
            _write(f"{PREFIX}{type(error).__name__}: {error}")
        raise SystemExit(1) from None
    _write(DONE)


def _write(text: str) -> None:
    """Write `text` to stderr, after all that was written to stdout: both may be one log.

    On a full disk, the log ends without it.
    """
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        print(text, file=sys.stderr, flush=True)


def read_failure(log: Path) -> str | None:
    """Why the job of `log` failed: its message, maybe of several lines. None if it did not say.

    >>> import tempfile
    >>> log = Path(tempfile.mkdtemp(), "tracking.log")
    >>> log.write_text("reads the results\\ndmlbench: no server answers\\n") and read_failure(log)
    'no server answers'
    """
    lines = last_lines(log)
    starts = [number for number, line in enumerate(lines) if line.startswith(PREFIX)]
    if not starts or lines[-1] == DONE:
        return None
    message = "\n".join(lines[starts[-1] :])
    return message.removeprefix(PREFIX)


def has_succeeded(log: Path) -> bool:
    """Whether the job of `log` said that it succeeded."""
    return last_lines(log)[-1:] == [DONE]


def last_words(log: Path) -> str:
    """The last line of `log`; empty if it has none."""
    return "".join(last_lines(log)[-1:])


def last_lines(log: Path) -> list[str]:
    """The last lines of `log`, without blank ones at its end; none if it cannot be read.

    A training writes all of its attempts into one log: these are lines of the last attempt.
    """
    try:
        text = read_end(log, TAIL_BYTES)
    except OSError:
        return []
    lines = text.rstrip().splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(ATTEMPT)]
    return lines[starts[-1] + 1 :] if starts else lines
