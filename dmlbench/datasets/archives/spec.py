"""Where the archives of a data set come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Archive(NamedTuple):
    """Where one archive of a data set comes from."""

    urls: tuple[str, ...]
    """The official address first, then mirrors; () if people must get the file themselves."""
    checksum: str | None
    """"md5:..." or "sha256:..."; None if none is published."""
    by_hand: str = ""
    """How a person gets the file: the page, and the terms to agree to."""


Sources = Mapping[str, Archive] | tuple[Mapping[str, Archive], ...]
"""{file name: Archive}; or several such groups of which one is enough, the preferred one first."""


def archive_groups(sources: Sources) -> list[Mapping[str, Archive]]:
    """The groups of archives of which one is enough; [] if the data set needs no archive."""
    groups = sources if isinstance(sources, tuple) else (sources,)
    return [group for group in groups if group]


def checksum_algorithm(expected: str | None) -> str:
    """The algorithm of the checksum `expected`; sha256 if no checksum is known."""
    return expected.partition(":")[0] if expected else "sha256"
