"""In-Shop Clothes Retrieval (DeepFashion): 52,712 photographs of 7,982 clothes in online shops.

Ziwei Liu, Ping Luo, Shi Qiu, Xiaogang Wang, Xiaoou Tang: DeepFashion: Powering Robust Clothes
Recognition and Retrieval with Rich Annotations. CVPR 2016.
https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html

Access: by hand; agree to the terms on the authors' page, which leads to a Google Drive; for
non-commercial research. There the files are Img/img.zip and Eval/list_eval_partition.txt. Here
their names say which data set they belong to. No checksums are published.

Split: the authors' list_eval_partition.txt. In a test, the queries search the gallery, not each
other. The path gives the super-classes, as WOMEN/Dresses and WOMEN. There are 23 categories in all
(that number is from memory and is not asserted).

Traps: img_highres.zip is encrypted and holds other images than the papers used. If an item is in
two categories, it gets the one that comes first by name.
"""

from __future__ import annotations

import re
from collections import Counter
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
    "levels": ["category", "gender"],
    "recall_at": [1, 10, 20, 30],
    "splits": {"train": [3997, 25882], "test": [3985, 26830]},
    "roles": {"query": 14218, "gallery": 12612},
}
_AGREEMENT = "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html: agree to the"
SOURCES = {
    "inshop_list_eval_partition.txt": Archive(
        (), None, f"{_AGREEMENT} terms and take Eval/list_eval_partition.txt, under this name."
    ),
    "inshop_img.zip": Archive(
        (), None, f"{_AGREEMENT} terms and take Img/img.zip, under this name."
    ),
}

_LAYOUT = "img/<gender>/<category>/<item>/<image>.jpg"
_PATH = re.compile(r"img/(?P<category>(?P<gender>[^/]+)/[^/]+)/(?P<item>id_\d+)/[^/]+")
_ROLES = {"train": "both", "query": "query", "gallery": "gallery"}


def images(archives: Mapping[str, Path]) -> Iterator[tuple[Row, bytes]]:
    """Yield every photograph of the partition; a test image has the role query or gallery."""
    partition = archives["inshop_list_eval_partition.txt"]
    rows = by_member((row.path, row) for row in read_partition(partition))
    check_splits("inshop", rows.values(), FACTS["splits"], partition)
    roles = Counter(row.role for row in rows.values())
    counts = {role: (roles[role], n) for role, n in FACTS["roles"].items()}
    check_counts("inshop", counts, partition)
    yield from Members(archives["inshop_img.zip"], _LAYOUT).images(rows)


def read_partition(partition: Path) -> list[Row]:
    """The row of each image that list_eval_partition.txt lists.

    Raises:
        DatasetError: a line is wrong; the text names it.
    """
    rows: list[Row] = []
    categories: dict[str, tuple[str, str]] = {}
    for where, (text, item, status) in read_table(partition, columns=3, skip=2):
        path = normalize_path(text)
        match = _PATH.fullmatch(path)
        if match is None or match["item"] != item:
            raise DatasetError(f"{where}: {text} is not img/<gender>/<category>/{item}/<image>")
        if status not in _ROLES:
            raise DatasetError(f"{where}: {status} is not train, query or gallery")
        level = match["category"], match["gender"]
        categories[item] = min(level, categories.get(item, level))
        split = "train" if status == "train" else "test"
        rows.append(Row(path, item, level, split, _ROLES[status], where))
    where, total = next(read_table(partition))
    declared = whole_number(" ".join(total), where)
    check_counts("inshop", {"images": (len(rows), declared)}, partition)
    return [row._replace(levels=categories[row.class_name]) for row in rows]
