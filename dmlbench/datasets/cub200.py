"""CUB-200-2011: 11,788 photographs of 200 species of birds.

Catherine Wah, Steve Branson, Peter Welinder, Pietro Perona, Serge Belongie: The Caltech-UCSD
Birds-200-2011 Dataset. Technical report CNS-TR-2011-001, California Institute of Technology, 2011.
https://data.caltech.edu/records/65de6-vp158

Access: free download, 1.2 GB; for non-commercial research.

Split: the first 100 classes train, the others test, as in all papers of the field.

Traps: train_test_split.txt in the archive belongs to a classification task and is not used.
ImageNet holds birds of the training and the test classes, so ImageNet weights have seen some of
them. CUB-200 of 2010 is another data set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dmlbench.datasets import Row
from dmlbench.datasets.annotations import by_member, check_splits, read_table
from dmlbench.datasets.archives.spec import Archive
from dmlbench.datasets.members import Members
from dmlbench.datasets.names import normalize_path
from dmlbench.utils.errors import DatasetError

FACTS: dict[str, Any] = {
    "version": 1,
    "channels": 3,
    "levels": [],
    "recall_at": [1, 2, 4, 8],
    "splits": {"train": [100, 5864], "test": [100, 5924]},
}
SOURCES = {
    "CUB_200_2011.tgz": Archive(
        ("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",),
        "md5:97eceeb196236b17998738112f37df78",
    )
}

_LAYOUT = "CUB_200_2011/ with images.txt and images/<number>.<species>/<image>.jpg"
_PATH = re.compile(r"(?P<class_name>(?P<number>\d{3})\.[^/]+)/[^/]+")


def images(archives: Mapping[str, Path]) -> Iterator[tuple[Row, bytes]]:
    """Yield every photograph that images.txt lists. Its folder is its class."""
    members = Members(archives["CUB_200_2011.tgz"], _LAYOUT)
    table = members.find("images.txt")
    rows = by_member((f"images/{row.path}", row) for row in _read_rows(members.archive, table))
    check_splits("cub200", rows.values(), FACTS["splits"], f"{members.archive}: {table}")
    yield from members.images(rows)


def _read_rows(archive: Path, table: str) -> Iterator[Row]:
    """The rows of images.txt: "1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg"."""
    for where, (_number, text) in read_table(archive, table, columns=2):
        path = normalize_path(text)
        match = _PATH.fullmatch(path)
        if match is None:
            raise DatasetError(f"{where}: {text} is not <number>.<species>/<image>.jpg")
        split = "train" if int(match["number"]) <= 100 else "test"
        yield Row(path, match["class_name"], (), split, origin=where)
