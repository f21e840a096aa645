"""Fonts in a PDF without what no reader of it needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fontTools.subset import Options

UNUSED = ("GSUB", "GPOS", "GDEF", "kern")
"""The tables by which letters are joined and moved together. matplotlib has done that before."""
_DEFAULT = "_drop_tables_default"


@contextmanager
def small_fonts() -> Iterator[None]:
    """While it is active, matplotlib embeds fonts without UNUSED.

    It takes the letters of a plot out of the font, and most of that time, half a second for each
    PDF, went into these tables. It gives no access to the options of fontTools, so this changes
    their default. If a later fontTools has no such default, only the time is lost.
    """
    default = getattr(Options, _DEFAULT, None)
    if default is None:
        yield
        return
    setattr(Options, _DEFAULT, [*default, *UNUSED])
    try:
        yield
    finally:
        setattr(Options, _DEFAULT, default)
