"""In-Shop Clothes Retrieval (DeepFashion): 52,712 photographs of 7,982 clothes in online shops.

Ziwei Liu, Ping Luo, Shi Qiu, Xiaogang Wang, Xiaoou Tang: DeepFashion: Powering Robust Clothes
Recognition and Retrieval with Rich Annotations. CVPR 2016.
https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html

Access: by hand, after the agreement on the authors' page, which leads to a Google Drive; for
research that is not commercial. Their names are Img/img.zip and Eval/list_eval_partition.txt; they
are kept under names that say whose they are. No checksums are published.

Split: the authors', list_eval_partition.txt. In a test, the queries search the gallery, not each
other. Super-classes are what the path says: WOMEN/Dresses and WOMEN, of 23 categories in all (that
number is from memory and not asserted).

Traps: img_highres.zip is encrypted and holds other images than the papers used. Should an item
stand under two categories, it is of the one that comes first by name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dmlbench.datasets import Archive, DatasetError, Row
from dmlbench.datasets.annotations import (
    by_member,
    check_counts,
    check_splits,
    listed_images,
    read_table,
    whole_number,
)
from dmlbench.datasets.archives import read_zip

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

_PATH = re.compile(r"img/(?P<category>(?P<gender>[^/]+)/[^/]+)/(?P<item>id_\d+)/[^/]+")
_ROLES = {"train": "both", "query": "query", "gallery": "gallery"}


def images(archives: Mapping[str, Path]) -> Iterator[tuple[Row, bytes]]:
    """Every photograph of the partition; its role in a test is query or gallery."""
    partition, archive = archives["inshop_list_eval_partition.txt"], archives["inshop_img.zip"]
    rows = by_member((row.path, row) for row in _rows(partition))
    check_splits("inshop", rows.values(), FACTS["splits"], partition)
    roles = Counter(row.role for row in rows.values())
    counts = {role: (roles[role], n) for role, n in FACTS["roles"].items()}
    check_counts("inshop", counts, partition)
    yield from listed_images(archive, read_zip(archive), rows)


def _rows(partition: Path) -> list[Row]:
    rows: list[Row] = []
    categories: dict[str, tuple[str, str]] = {}
    for where, (path, item, status) in read_table(partition, columns=3, skip=2):
        found = _PATH.fullmatch(path)
        if found is None or found["item"] != item:
            raise DatasetError(f"{where}: {path} is not img/<gender>/<category>/{item}/<image>")
        if status not in _ROLES:
            raise DatasetError(f"{where}: {status} is not train, query or gallery")
        level = found["category"], found["gender"]
        categories[item] = min(level, categories.get(item, level))
        split = "train" if status == "train" else "test"
        rows.append(Row(path, item, level, split, _ROLES[status], where))
    where, total = next(read_table(partition))
    declared = whole_number(" ".join(total), where)
    check_counts("inshop", {"images": (len(rows), declared)}, partition)
    return [row._replace(levels=categories[row.class_name]) for row in rows]
