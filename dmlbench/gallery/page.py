"""The pages of pictures as HTML files. All but the images of maps is in the file itself."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from dmlbench.gallery.comparison import DifferencesPage
from dmlbench.gallery.examples import GalleryPage
from dmlbench.leaderboard.templating import templates

KEY = re.compile(r'<meta name="dmlbench-key" content="([0-9a-f]+)( [0-9a-f]+)">')


def render_gallery(page: GalleryPage) -> str:
    """The page of a loss, with its key and a digest of all else, if it has a key."""
    text = templates().get_template("gallery.html").render(page=page, sheet=_url(page.sheet))
    return text.replace(f'content="{page.key}"', f'content="{page.key} {_digest(text)}"', 1)


def render_differences(page: DifferencesPage) -> str:
    """The page of a data set and a backbone."""
    return templates().get_template("differences.html").render(page=page, sheet=_url(page.sheet))


def read_key(file: Path) -> str:
    """The key of a page of `render_gallery`; empty if there is no such page or it is damaged."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    found = KEY.search(text)
    if not found:
        return ""
    without = text.replace(found[2], "", 1)
    return found[1] if found[2] == f" {_digest(without)}" else ""


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _url(sheet: bytes) -> str:
    return f"data:image/webp;base64,{b64encode(sheet).decode()}"
