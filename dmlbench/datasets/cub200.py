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
from dmlbench.datasets.archives.reading import read_tar
from dmlbench.datasets.archives.spec import Archive
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

_IMAGES = "CUB_200_2011/images/"
_MEMBER = re.compile(r"(?P<class_name>(?P<number>\d{3})\.[^/]+)/[^/]+\.jpg")


def images(archives: Mapping[str, Path]) -> Iterator[tuple[Row, bytes]]:
    """Yield every photograph. Its folder is its class: images/001.Black_footed_Albatross/*.jpg."""
    archive = archives["CUB_200_2011.tgz"]
    for member, content in read_tar(archive):
        if member.startswith(_IMAGES):
            path = member.removeprefix(_IMAGES)
            match = _MEMBER.fullmatch(path)
            if match is None:
                raise DatasetError(f"{archive}: {member} is not <number>.<species>/<image>.jpg")
            split = "train" if int(match["number"]) <= 100 else "test"
            yield Row(path, match["class_name"], (), split), content
