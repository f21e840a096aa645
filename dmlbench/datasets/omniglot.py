"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawings of each.

Brenden M. Lake, Ruslan Salakhutdinov, Joshua B. Tenenbaum: Human-level concept learning through
probabilistic program induction. Science 350(6266), 2015. https://github.com/brendenlake/omniglot

Access: free download, 16 MB; MIT licence. Black strokes on white, 105 x 105, 1 bit.

Split: the authors' split: 30 background alphabets train, 20 evaluation alphabets test. A class is a
character of an alphabet, and its super-class is the alphabet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from dmlbench.datasets import Row
from dmlbench.datasets.archives.reading import read_zip
from dmlbench.datasets.archives.spec import Archive
from dmlbench.utils.errors import DatasetError

FACTS = {
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

_MEMBER = re.compile(r"images_\w+/(?P<alphabet>[^/]+)/(?P<character>character\d+)/\d+_\d+\.png")


def images(archives: Mapping[str, Path]) -> Iterator[tuple[Row, bytes]]:
    """Yield every drawing as its PNG file."""
    for archive, split in (("images_background.zip", "train"), ("images_evaluation.zip", "test")):
        for path, content in read_zip(archives[archive]):
            match = _MEMBER.fullmatch(path)
            if match is None:
                raise DatasetError(
                    f"{archives[archive]}: {path} is not <folder>/<alphabet>/<character>/<image>"
                )
            alphabet = match["alphabet"]
            yield Row(path, f"{alphabet}/{match['character']}", (alphabet,), split), content
