"""The pages of pictures as HTML files. All but the images of maps is in the file itself."""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path

from dmlbench.gallery.comparison import DifferencesPage
from dmlbench.gallery.examples import GalleryPage
from dmlbench.leaderboard.templating import templates

KEY = re.compile(r'<meta name="dmlbench-key" content="([0-9a-f]+)">')
HEAD_BYTES = 1000
"""The key of a page is among its first bytes."""


def render_gallery(page: GalleryPage) -> str:
    """The page of a loss."""
    return templates().get_template("gallery.html").render(page=page, sheet=_url(page.sheet))


def render_differences(page: DifferencesPage) -> str:
    """The page of a data set and a backbone."""
    return templates().get_template("differences.html").render(page=page, sheet=_url(page.sheet))


def read_key(file: Path) -> str:
    """The key of a page of `render_gallery`; empty if there is no such page."""
    try:
        with file.open("rb") as content:
            head = content.read(HEAD_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    found = KEY.search(head)
    return found[1] if found else ""


def _url(sheet: bytes) -> str:
    return f"data:image/webp;base64,{b64encode(sheet).decode()}"
