"""The files of the pictures of a data set and a backbone.

results/<study>/leaderboard/galleries/
  <dataset>/<backbone>.html          what losses disagree on
  <dataset>/<backbone>/
    <loss>.html                      what a loss retrieved, and its map
    thumbnails.webp                  the images of all maps
    made.json                        what the pages were made from; written last
"""

from __future__ import annotations

import shutil
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

MAKES_NUMBERS = False
GALLERIES = "galleries"
"""The folder beside the page of the leaderboard."""


@dataclass(frozen=True)
class GalleryFiles:
    """The files of the pictures of a data set and a backbone."""

    folder: Path
    """leaderboard/galleries/<dataset>/<backbone>."""
    log: Path

    @property
    def differences(self) -> Path:
        """The page that compares losses."""
        return self.folder.with_name(f"{self.folder.name}.html")

    @property
    def thumbnails(self) -> Path:
        return self.folder / "thumbnails.webp"

    @property
    def made_of(self) -> Path:
        """The key and the code that the pages were made from."""
        return self.folder / "made.json"

    def page(self, loss: str) -> Path:
        """The page of a loss."""
        return self.folder / f"{loss}.html"

    def pages(self) -> Iterator[Path]:
        """All files but `made_of`, those of an earlier call among them."""
        yield from sorted(self.folder.glob("*.html"))
        yield from (file for file in (self.thumbnails, self.differences) if file.is_file())


def remove_other_galleries(leaderboard: Path, groups: Container[str]) -> None:
    """Remove the pictures that an earlier study left in the folder `leaderboard`.

    Args:
        groups: dataset/backbone of the pictures that stay, which a job may be drawing now.
    """
    folder = leaderboard / GALLERIES
    for path in folder.glob("*/*"):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and name not in groups:
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix == ".html" and name.removesuffix(".html") not in groups:
            path.unlink()


def gallery_page(path: str) -> str:
    """The pictures of a cell, or of a data set and a backbone, seen from the leaderboard's page.

    >>> gallery_page("letters/test_resnet/htl")
    'galleries/letters/test_resnet/htl.html'
    """
    return f"{GALLERIES}/{path}.html"
