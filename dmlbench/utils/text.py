"""Numbers, lists and suggestions as text for people."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from typing import Any

MAX_REASON = 300
"""Characters of a library's error that are shown: some quote the file."""
MAX_LINES = 20
"""Lines of a list that are shown."""

OBEYED = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069"
    r"\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
"""Characters that are no text: an XML file must not have them, or a terminal obeys them."""


def count_of(number: int, noun: str) -> str:
    """`1 run`, `3 runs`, `2 losses`, `1,000 images`."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def format_duration(seconds: float) -> str:
    """`12 s`, `3 min`, `2 h 05 min`, `3 d 4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def format_bytes(count: float) -> str:
    """`12 bytes`, `1.07 GB`."""
    unit = "bytes"
    for larger in ("kB", "MB", "GB"):
        if count >= 1000:
            count, unit = count / 1000, larger
    return f"{count:,.2f}".rstrip("0").rstrip(".") + f" {unit}"


def listed(title: str, lines: Sequence[str]) -> str:
    """`title`, the first `lines`, one below the other, and how many more there are."""
    more = [f"... and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
    return "\n    ".join([f"{title}:", *lines[:MAX_LINES], *more])


def some_of(names: Collection[Any], most: int, show: Callable[[Any], str] = str) -> str:
    """The first names in one line, and how many more there are.

    >>> some_of(["a", "b", "c", "d"], 2)
    'a, b and 2 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(show, islice(names, most))) + more


def error_reason(error: BaseException) -> str:
    """The text of an error of a library in one short line; its type if it has no text.

    >>> error_reason(ValueError("first\\n second")), error_reason(EOFError())
    ('first second', 'EOFError')
    """
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 3]}..."


def first_line(error: BaseException) -> str:
    """The first line of the text of an error of a library; its type if it has no text.

    >>> first_line(ValueError("first\\n second")), first_line(EOFError())
    ('first', 'EOFError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def literal(text: str) -> str:
    """The text in one line, without characters that a file or a terminal would obey.

    Control characters, halves of characters, and marks that turn the direction of writing are
    replaced.

    >>> literal("a\\tb\\x1b[2Jc\\n\\u202ed")
    'a b�[2Jc �d'
    """
    return OBEYED.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.split()))


class ShortRepr(reprlib.Repr):
    """The beginning of `repr(value)`: it never builds the rest."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.maxstring = self.maxlong = self.maxother = length

    def repr_int(self, value: int, level: int) -> str:
        try:
            return super().repr_int(value, level)
        except ValueError:  # Python does not write more than 4,300 digits
            return "a number of thousands of digits"


def short_repr(value: Any) -> str:
    """The beginning of `repr(value)`, however large, deep or circular `value` is.

    >>> short_repr([0] * 10**6), short_repr("a" * 10**6)[-5:]
    ('[0, 0, 0, 0, 0, 0, ...]', "aaaa'")
    """
    return _SHORT.repr(value)


_SHORT = ShortRepr(80)


def did_you_mean(name: str, allowed: Iterable[str], show: int = 30) -> str:
    """A sentence that suggests the nearest of `allowed`, and lists all of them if they are few."""
    names = sorted(allowed)
    spellings = {name.casefold(): name for name in names}  # HTL is near to htl
    near = difflib.get_close_matches(name.casefold(), spellings, n=1)
    guess = f"Did you mean '{spellings[near[0]]}'? " if near else ""
    return f"{guess}Allowed: {', '.join(names)}." if len(names) <= show else guess.rstrip()
