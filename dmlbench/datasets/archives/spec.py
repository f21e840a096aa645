"""Where the archives of a data set come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Archive(NamedTuple):
    """Where one archive of a data set comes from."""

    urls: tuple[str, ...]
    """The official address first, then mirrors; () if people must get the file themselves."""
    checksum: str | None
    """"md5:..." or "sha256:..."; None if none is published."""
    by_hand: str = ""
    """How a person gets the file: the page, and the terms to agree to."""


@dataclass(frozen=True)
class HubFiles:
    """Files of one commit of a data set on the Hugging Face Hub. Only the hub knows their names."""

    repo: str
    """owner/name."""
    commit: str
    """40 hex digits."""
    patterns: tuple[str, ...]
    """Patterns of the paths of the files."""

    def folder(self, archives: Path) -> Path:
        """Where the files go."""
        return archives / "hub" / self.repo.replace("/", "--") / self.commit


Sources = Mapping[str, Archive] | tuple[Mapping[str, Archive], ...] | HubFiles
"""{file name: Archive}; or several such groups of which one is enough, the preferred one first; or
files of a hub."""


def archive_groups(sources: Sources) -> list[Mapping[str, Archive]]:
    """The groups of archives of which one is enough; [] if the data set has no named archives."""
    if isinstance(sources, HubFiles):
        return []
    groups = sources if isinstance(sources, tuple) else (sources,)
    return [group for group in groups if group]


def checksum_algorithm(expected: str | None) -> str:
    """The algorithm of the checksum `expected`; sha256 if no checksum is known."""
    return expected.partition(":")[0].lower() if expected else "sha256"
