"""Whole numbers that users write on the command line and in the environment."""

from __future__ import annotations

from dmlbench.utils.text import short_repr

MAX_DIGITS = 15


def parse_count(text: str, most: int) -> int:
    """The whole number `text`, from 1 to `most`.

    Raises:
        ValueError: it is another text.

    >>> parse_count("12", 100)
    12
    """
    is_number = text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS
    if not is_number or not 1 <= int(text) <= most:
        raise ValueError(f"{short_repr(text)} is not a whole number from 1 to {most:,}")
    return int(text)
