"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings of each.

Brenden M. Lake, Ruslan Salakhutdinov, Joshua B. Tenenbaum: Human-level concept learning through
probabilistic program induction. Science 350(6266), 2015. https://github.com/brendenlake/omniglot

Access: free download, 16 MB; MIT licence. Black strokes on white, 105 x 105, 1 bit.

Split: the authors' split: 30 background alphabets train, 20 evaluation alphabets test. A class is a
character of an alphabet, and its super-class is the alphabet.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from dmlbench.datasets import Row
from dmlbench.datasets.annotations import by_member, check_splits
from dmlbench.datasets.archives.spec import Archive
from dmlbench.datasets.members import Members
from dmlbench.utils.text import count_of

FACTS: dict[str, Any] = {
    "version": 1,
    "channels": 1,
    "levels": ["alphabet"],
    "recall_at": [1, 2, 4, 8],
    "splits": {"train": [964, 19280], "test": [659, 13180]},
}

_URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"
SOURCES = {
    "images_background.zip": Archive(
        (f"{_URL}/images_background.zip",), "md5:68d2efa1b9178cc56df9314c21c6e718"
    ),
    "images_evaluation.zip": Archive(
        (f"{_URL}/images_evaluation.zip",), "md5:6b91aef0f799c5bb55b94e3f2daec811"
    ),
}

_LAYOUT = "images_background/<alphabet>/<character>/<drawing>.png; images_evaluation/ likewise"
_DRAWING = re.compile(r"images_\w+/(?P<alphabet>[^/]+)/(?P<character>character\d+)/\d+_\d+\.png")
DRAWINGS = 20
"""Drawings of each character."""


def images(archives: Mapping[str, Path]) -> Iterator[tuple[Row, bytes]]:
    """Yield every drawing as its PNG file."""
    halves = []
    for archive, split in (("images_background.zip", "train"), ("images_evaluation.zip", "test")):
        members = Members(archives[archive], _LAYOUT)
        rows = by_member(_rows(members, split))
        counts = Counter(row.class_name for row in rows.values())
        remarks = [
            f"{name} has {count_of(count, 'drawing')}, expected {DRAWINGS}"
            for name, count in sorted(counts.items())
            if count != DRAWINGS
        ]
        splits = {split: FACTS["splits"][split]}
        check_splits("omniglot", rows.values(), splits, members.archive, remarks)
        halves.append(members.images(rows))
    yield from chain(*halves)


def _rows(members: Members, split: str) -> Iterator[tuple[str, Row]]:
    for match in members.match(_DRAWING):
        name = f"{match['alphabet']}/{match['character']}"
        yield match[0], Row(match[0], name, (match["alphabet"],), split)
