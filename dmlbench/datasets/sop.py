"""Stanford Online Products: 120,053 photographs of 22,634 products from an auction site.

Hyun Oh Song, Yu Xiang, Stefanie Jegelka, Silvio Savarese: Deep Metric Learning via Lifted
Structured Feature Embedding. CVPR 2016. https://cvgl.stanford.edu/projects/lifted_struct/

Access: free download, 3 GB, from the authors' Google Drive, because their FTP server is often down.

Split: the authors' Ebay_train.txt and Ebay_test.txt. The super-class is the kind of product. There
are 12 kinds, the same in both splits.

Traps: a product has about five images, so MAP@R and R-Precision look at few images. Some images are
gray.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dmlbench.datasets import Row
from dmlbench.datasets.annotations import (
    by_member,
    check_counts,
    check_splits,
    read_table,
    whole_number,
)
from dmlbench.datasets.archives.spec import Archive
from dmlbench.datasets.members import Members
from dmlbench.datasets.names import normalize_path
from dmlbench.utils.errors import DatasetError

FACTS: dict[str, Any] = {
    "version": 1,
    "channels": 3,
    "levels": ["kind of product"],
    "recall_at": [1, 10, 100, 1000],
    "splits": {"train": [11318, 59551], "test": [11316, 60502]},
    "super_classes": 12,
}
SOURCES = {
    "Stanford_Online_Products.zip": Archive(
        (
            "https://drive.usercontent.google.com/download"
            "?id=1TclrpQOF_ullUP99wk_gjGN8pKvtErG8&export=download&confirm=t",
        ),
        "md5:7f73d41a2f44250d4779881525aea32e",
        "or from ftp://cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip",
    )
}

_LAYOUT = (
    "Stanford_Online_Products/ with Ebay_train.txt, Ebay_test.txt and "
    "<kind of product>_final/<image>.JPG"
)


def images(archives: Mapping[str, Path]) -> Iterator[tuple[Row, bytes]]:
    """Yield every photograph that Ebay_train.txt and Ebay_test.txt list."""
    members = Members(archives["Stanford_Online_Products.zip"], _LAYOUT)
    rows = by_member((row.path, row) for row in _read_rows(members))
    check_splits("sop", rows.values(), FACTS["splits"], members.archive)
    kinds = len({row.levels for row in rows.values()})
    check_counts("sop", {"super-classes": (kinds, FACTS["super_classes"])}, members.archive)
    yield from members.images(rows)


def _read_rows(members: Members) -> Iterator[Row]:
    for split in ("train", "test"):
        file = members.find(f"Ebay_{split}.txt")
        table = read_table(members.archive, file, columns=4, skip=1)
        for where, (_image, product, _kind, text) in table:
            path = normalize_path(text)
            kind, separator, _ = path.partition("_final/")
            if not separator:
                raise DatasetError(f"{where}: {text} is not <kind of product>_final/<image>")
            name = f"{whole_number(product, where, 1):05}"
            yield Row(path, name, (kind,), split, origin=where)
