"""iNaturalist 2018, the split of Smooth-AP: 461,939 photographs of 8,142 species.

Grant Van Horn, Oisin Mac Aodha, Yang Song, Yin Cui, Chen Sun, Alex Shepard, Hartwig Adam, Pietro
Perona, Serge Belongie: The iNaturalist Species Classification and Detection Dataset. CVPR 2018.
https://github.com/visipedia/inat_comp/tree/master/2018

Access: free download, 120 GB; for non-commercial research. Each photograph has its own licence. The
files of the split have no published checksum.

Split: Andrew Brown, Weidi Xie, Vicky Kalogeiton, Andrew Zisserman: Smooth-AP: Smoothing the Path
Towards Large-Scale Image Retrieval. ECCV 2020. 5,690 species train, the other 2,452 test, over the
images of train and val of the competition. train2018.json of the competition gives the
super-classes: genus, family, order, class, phylum, kingdom.

Traps: it needs the two files of the split, Inaturalist_train_set1.txt and
Inaturalist_test_set1.txt. Other papers that name iNaturalist 2018 test on val of the competition.
Species have very unequal numbers of images. Weights from iNaturalist have seen the test species.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dmlbench.datasets import Row
from dmlbench.datasets.annotations import (
    by_member,
    check_counts,
    check_splits,
    read_table,
)
from dmlbench.datasets.archives.reading import read_member
from dmlbench.datasets.archives.spec import Archive
from dmlbench.datasets.members import Members
from dmlbench.datasets.names import normalize_path
from dmlbench.utils.errors import DatasetError

FACTS: dict[str, Any] = {
    "version": 1,
    "channels": 3,
    "levels": ["genus", "family", "order", "class", "phylum", "kingdom"],
    "recall_at": [1, 4, 16, 32],
    "splits": {"train": [5690, 325846], "test": [2452, 136093]},
    "train_super_classes": [3438, 961, 249, 54, 23, 5],
}
_URL = "https://ml-inat-competition-datasets.s3.amazonaws.com/2018"
SOURCES = {
    "train2018.json.tar.gz": Archive(
        (f"{_URL}/train2018.json.tar.gz",), "md5:bfa29d89d629cbf04d826a720c0a68b0"
    ),
    "Inat_dataset_splits.zip": Archive(
        (
            "https://drive.usercontent.google.com/download"
            "?id=1sXfkBTFDrRU3__-NUs1qBP3sf_0uMB98&export=download&confirm=t",
        ),
        None,
        "the Data section of https://github.com/Andrew-Brown1/Smooth_AP",
    ),
    "train_val2018.tar.gz": Archive(
        (f"{_URL}/train_val2018.tar.gz",), "md5:b1c6952ce38f31868cc50ea72d066cc3"
    ),
}


def images(archives: Mapping[str, Path]) -> Iterator[tuple[Row, bytes]]:
    """Yield every photograph of the split, in one pass over the archive."""
    lists = archives["Inat_dataset_splits.zip"]
    rows = by_member(
        (row.path, row) for row in _read_rows(lists, archives["train2018.json.tar.gz"])
    )
    check_splits("inat2018", rows.values(), FACTS["splits"], lists)
    train = {row.levels for row in rows.values() if row.split == "train"}
    super_classes = [len(set(names)) for names in zip(*train, strict=True)]
    counts = zip(super_classes, FACTS["train_super_classes"], strict=True)
    check_counts("inat2018", dict(zip(FACTS["levels"], counts, strict=True)), lists)
    layout = "train_val2018/<group>/<species>/<image>.jpg"
    yield from Members(archives["train_val2018.tar.gz"], layout).images(rows)


def _read_rows(lists: Path, annotations: Path) -> Iterator[Row]:
    taxonomy = _read_taxonomy(annotations)
    members = Members(lists, "Inaturalist_train_set1.txt and Inaturalist_test_set1.txt")
    for split in ("train", "test"):
        table = read_table(lists, members.find(f"Inaturalist_{split}_set1.txt"), columns=1)
        for where, (text,) in table:
            path = normalize_path(text)
            root, *species = path.split("/")[:-1]
            if root != "train_val2018" or len(species) != 2 or species[1] not in taxonomy:
                raise DatasetError(
                    f"{where}: {text} is not train_val2018/<group>/<species>/<image>"
                )
            yield Row(path, "/".join(species), taxonomy[species[1]], split, origin=where)


def _read_taxonomy(annotations: Path) -> dict[str, tuple[str, ...]]:
    """The super-classes of each species, by its number."""
    file = Members(annotations, "train2018.json").find("train2018.json")
    content = read_member(annotations, file)
    try:
        text = content.decode()
        # only the categories: the whole file as objects would take a gigabyte
        start = text.index("[", text.index('"categories"'))
        categories, _ = json.JSONDecoder().raw_decode(text, start)
        levels = FACTS["levels"]
        return {str(c["id"]): tuple(str(c[level]) for level in levels) for c in categories}
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{annotations}: train2018.json: its categories cannot be read: {error!r}"
        ) from None
