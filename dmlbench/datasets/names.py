"""One form for the names of images and classes, whatever system wrote them.

macOS writes "é" as two code points (NFD), Linux and Windows mostly as one (NFC); Windows separates
folders by backslashes. Everything that compares names, or keeps them, brings them into one form
here: tables, folders, archives, and files of embeddings.
"""

from __future__ import annotations

import posixpath
from unicodedata import normalize


def normalize_path(path: str) -> str:
    r"""The one form of a path: NFC, slashes, no white space around it, no `.`, `..` or `//` inside.

    A path that leads out of its folder still begins with `..`, and an absolute one with `/`.

    >>> normalize_path(".\\U\u0308ber\\1.png") == "\u00dcber/1.png"
    True
    >>> normalize_path("a/../b.png"), normalize_path("../b.png"), normalize_path("")
    ('b.png', '../b.png', '')
    """
    path = normalize("NFC", path).strip().replace("\\", "/")
    return posixpath.normpath(path) if path else ""


def normalize_label(label: str) -> str:
    r"""The one form of a class name: NFC, no white space around it. Upper and lower case differ.

    >>> normalize_label(" U\u0308ber ") == "\u00dcber"
    True
    """
    return normalize("NFC", label).strip()
